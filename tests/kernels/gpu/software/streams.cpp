// Streams and events, and the three orders in which work is done.
//
// late: nothing is done before somebody waits for it or for what needs it. early: everything at
// once. random: after each call some streams go on by a few steps, and whoever waits lets any
// stream that can go on; how eager each stream is changes with every wait. The legacy stream (0)
// waits for all blocking streams and they for it, as CUDA has it.
#include "driver.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <thread>
#include <unordered_set>

using namespace software;

struct CUstream_st {
    std::deque<Work> queue;
    Work last;
    bool is_blocking = true;
    bool is_destroyed = false;
    unsigned eagerness = 0;  // steps at most after a call
};

struct CUevent_st {
    Work record;  // the latest one, none before the first
    bool is_timed = true;
};

namespace software {

static Mode mode = LATE;
static uint64_t seed = 0, drawn = 0, launched = 0;
static CUstream_st legacy;
static std::vector<CUstream> streams = {&legacy};  // in the order of creation
static std::unordered_set<CUevent> events;

static uint64_t mixed(uint64_t value) {
    value += 0x9E3779B97F4A7C15ull;
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9ull;
    value = (value ^ value >> 27) * 0x94D049BB133111EBull;
    return value ^ value >> 31;
}

uint64_t draw() { return mixed(seed + 0x632BE59BD9B4E019ull * ++drawn); }

// 0 stays 0: threads in ascending order.
uint64_t launch_seed() { return seed ? mixed(seed ^ ++launched << 20) | 1 : 0; }

static CUstream known(CUstream stream) {
    if (!stream || stream == CU_STREAM_LEGACY) return &legacy;
    const bool is_there = std::find(streams.begin(), streams.end(), stream) != streams.end();
    return is_there && !stream->is_destroyed ? stream : nullptr;
}

static CUresult no_stream() {
    return refuse(CUDA_ERROR_INVALID_HANDLE, "a stream that is not there");
}

// A thread that does the work while the caller sleeps, so that the caller's core keeps its caches.
struct Helper {
    std::mutex mutex;
    std::condition_variable changed;
    const std::function<CUresult()> *given = nullptr;
    CUresult code = CUDA_SUCCESS;

    void live() {
        std::unique_lock<std::mutex> held(mutex);
        for (;;) {
            changed.wait(held, [&] { return given; });
            code = (*given)();
            given = nullptr;
            changed.notify_all();
        }
    }

    CUresult run(const std::function<CUresult()> &work) {
        std::unique_lock<std::mutex> held(mutex);
        given = &work;
        changed.notify_all();
        changed.wait(held, [&] { return !given; });
        return code;
    }
};
static Helper *helper = nullptr;  // lives as long as the process

static bool is_ready(CUstream stream) {
    if (stream->queue.empty()) return false;
    const auto &after = stream->queue.front()->after;
    return std::all_of(after.begin(), after.end(), [](const Work &work) { return work->is_done; });
}

// Does the first operation of a stream, which must be ready.
static CUresult step(CUstream stream) {
    Work work = stream->queue.front();
    stream->queue.pop_front();
    work->after.clear();
    CUresult code = CUDA_SUCCESS;
    if (work->run) {
        const uint64_t began = clock_ns();
        code = helper ? helper->run(work->run) : work->run();
        counts.execution_ns += clock_ns() - began;
        work->run = nullptr;
    }
    work->is_done = true;
    work->done_ns = counts.execution_ns;
    if (stream->is_destroyed && stream->queue.empty()) {
        streams.erase(std::find(streams.begin(), streams.end(), stream));
        delete stream;
    }
    return code;
}

static CUresult step_any() {
    std::vector<CUstream> ready;
    std::copy_if(streams.begin(), streams.end(), std::back_inserter(ready), is_ready);
    if (ready.empty()) return lose(CUDA_ERROR_UNKNOWN, "work waits for itself");
    return step(ready[draw() % ready.size()]);
}

// Does what a stream has up to an operation, and first what that needs of others.
static CUresult finish_late(const Work &work) {
    while (!work->is_done) {
        CUstream stream = work->stream;
        const std::vector<Work> after = stream->queue.front()->after;
        for (const Work &needed : after)
            if (CUresult code = finish_late(needed)) return code;
        if (CUresult code = step(stream)) return code;
    }
    return CUDA_SUCCESS;
}

CUresult finish(const Work &work) {
    if (mode != RANDOM) return finish_late(work);
    for (CUstream stream : streams) stream->eagerness = draw() % 3 ? 0 : 1 << draw() % 4;
    while (!work->is_done)
        if (CUresult code = step_any()) return code;
    return CUDA_SUCCESS;
}

static CUresult go_on() {
    if (mode != RANDOM) return CUDA_SUCCESS;
    const std::vector<CUstream> now = streams;
    for (CUstream stream : now) {
        uint64_t steps = draw() % (stream->eagerness + 1);
        // A destroyed stream may be gone after any step.
        while (steps-- && std::find(streams.begin(), streams.end(), stream) != streams.end())
            if (is_ready(stream))
                if (CUresult code = step(stream)) return code;
    }
    return CUDA_SUCCESS;
}

CUresult enqueue(CUstream given, Work work) {
    CUstream stream = known(given);
    if (!stream) return no_stream();
    work->stream = stream;
    if (stream == &legacy) {
        for (CUstream other : streams)
            if (other != stream && other->is_blocking && other->last && !other->last->is_done)
                work->after.push_back(other->last);
    } else if (stream->is_blocking && legacy.last && !legacy.last->is_done) {
        work->after.push_back(legacy.last);
    }
    stream->queue.push_back(work);
    stream->last = work;
    return mode == EARLY ? finish_late(work) : go_on();
}

void forget_work() {
    for (CUstream stream : streams) {
        for (const Work &work : stream->queue) work->is_done = true, work->after.clear();
        stream->queue.clear();
    }
}

bool is_named(uint64_t base) {
    for (CUstream stream : streams)
        for (const Work &work : stream->queue)
            if (std::find(work->names.begin(), work->names.end(), base) != work->names.end())
                return true;
    return false;
}

static CUresult finish_stream(CUstream stream) {
    const Work last = stream->last;
    return last ? finish(last) : CUDA_SUCCESS;
}

CUresult finish_all() {
    std::vector<Work> lasts;
    for (CUstream stream : streams)
        if (stream->last) lasts.push_back(stream->last);
    for (const Work &work : lasts)
        if (CUresult code = finish(work)) return code;
    return CUDA_SUCCESS;
}

static CUresult wait_for(const std::function<CUresult()> &what) {
    counts.waits++;
    if (CUresult code = injected("wait")) return code;
    return what();
}

}  // namespace software

// mode: 0 late, 1 early, 2 random; what was begun before goes on in the new order.
EXPORT void software_set_schedule(int new_mode, uint64_t new_seed) {
    std::lock_guard<std::recursive_mutex> guard(software::lock);
    mode = (Mode)new_mode, seed = new_seed;
    drawn = launched = 0;
}

// From now on another thread, on any of the cores that the caller has now, does the work.
EXPORT void software_use_helper() {
    std::lock_guard<std::recursive_mutex> guard(software::lock);
    if (helper) return;
    helper = new Helper;
    std::thread([] { helper->live(); }).detach();
}

API cuStreamCreateWithPriority(CUstream *stream, unsigned int flags, int) {
    ENTER();
    CUstream made = new CUstream_st;
    made->is_blocking = !(flags & CU_STREAM_NON_BLOCKING);
    streams.push_back(made);
    *stream = made;
    return CUDA_SUCCESS;
}

API cuStreamCreate(CUstream *stream, unsigned int flags) {
    return cuStreamCreateWithPriority(stream, flags, 0);
}

API cuStreamDestroy(CUstream given) {
    ENTER();
    CUstream stream = known(given);
    if (!stream || stream == &legacy) return no_stream();
    stream->is_destroyed = true;  // its work is still done
    if (stream->queue.empty()) {
        streams.erase(std::find(streams.begin(), streams.end(), stream));
        delete stream;
    }
    return CUDA_SUCCESS;
}

API cuStreamSynchronize(CUstream given) {
    ENTER();
    CUstream stream = known(given);
    return stream ? wait_for([&] { return finish_stream(stream); }) : no_stream();
}

API cuStreamQuery(CUstream given) {
    ENTER();
    CUstream stream = known(given);
    if (!stream) return no_stream();
    if (stream->queue.empty()) return CUDA_SUCCESS;
    // Whoever asks again and again gets there.
    if (CUresult code = is_ready(stream) ? step(stream) : step_any()) return code;
    return CUDA_ERROR_NOT_READY;
}

API cuStreamWaitEvent(CUstream given, CUevent event, unsigned int) {
    ENTER();
    CUstream stream = known(given);
    if (!stream || !events.count(event)) return no_stream();
    if (!event->record || event->record->is_done) return CUDA_SUCCESS;
    Work work = std::make_shared<Operation>();
    work->kind = "wait";
    work->after = {event->record};
    return enqueue(stream, work);
}

API cuStreamGetCtx(CUstream given, CUcontext *context) {
    ENTER();
    return known(given) ? cuCtxGetCurrent(context) : no_stream();
}

API cuStreamIsCapturing(CUstream given, CUstreamCaptureStatus *status) {
    ENTER();
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
    return known(given) ? CUDA_SUCCESS : no_stream();
}

API cuStreamGetFlags(CUstream given, unsigned int *flags) {
    ENTER();
    CUstream stream = known(given);
    if (!stream) return no_stream();
    *flags = stream->is_blocking ? CU_STREAM_DEFAULT : CU_STREAM_NON_BLOCKING;
    return CUDA_SUCCESS;
}

API cuCtxSynchronize() {
    ENTER();
    return wait_for(finish_all);
}

API cuEventCreate(CUevent *event, unsigned int flags) {
    ENTER();
    *event = new CUevent_st;
    (*event)->is_timed = !(flags & CU_EVENT_DISABLE_TIMING);
    events.insert(*event);
    return CUDA_SUCCESS;
}

static CUresult no_event() {
    return refuse(CUDA_ERROR_INVALID_HANDLE, "an event that is not there");
}

API cuEventDestroy(CUevent event) {
    ENTER();
    if (!events.erase(event)) return no_event();
    delete event;  // what waits for its mark still does
    return CUDA_SUCCESS;
}

API cuEventRecord(CUevent event, CUstream stream) {
    ENTER();
    if (!events.count(event)) return no_event();
    Work work = std::make_shared<Operation>();
    work->kind = "record";
    event->record = work;
    return enqueue(stream, work);
}

API cuEventQuery(CUevent event) {
    ENTER();
    if (!events.count(event)) return no_event();
    if (!event->record || event->record->is_done) return CUDA_SUCCESS;
    CUstream stream = event->record->stream;
    if (CUresult code = is_ready(stream) ? step(stream) : step_any()) return code;
    return CUDA_ERROR_NOT_READY;
}

API cuEventSynchronize(CUevent event) {
    ENTER();
    if (!events.count(event)) return no_event();
    const Work work = event->record;
    return wait_for([&] { return work ? finish(work) : CUDA_SUCCESS; });
}

API cuEventElapsedTime(float *milliseconds, CUevent start, CUevent stop) {
    ENTER();
    if (!events.count(start) || !events.count(stop)) return no_event();
    if (!start->record || !stop->record || !start->is_timed || !stop->is_timed)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!start->record->is_done || !stop->record->is_done) return CUDA_ERROR_NOT_READY;
    const double ns = (double)stop->record->done_ns - (double)start->record->done_ns;
    *milliseconds = (float)(ns / 1e6);
    return CUDA_SUCCESS;
}
