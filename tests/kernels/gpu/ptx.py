"""PTX as C++: the compiled text of a kernel, run by the host, one thread at a time.

The host's build of a kernel's source leaves out what only the device has: inline PTX, vector loads,
shared memory, what the device's compiler made of the rest. This module takes that compiler's PTX
and writes each instruction as a statement with the meaning that NVIDIA's "PTX ISA" gives it, carry
flag included. Registers are variables, labels are labels, all state spaces are the host's memory.
What it does not know is an error, so nothing is left out silently. A call is one thread from its
beginning to its end: a barrier waits for nobody, so what other threads write before it is there
only if they ran before.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

_CLASSES: Final = {"pred": "bool", "b16": "u16", "b32": "u32", "b64": "u64"}
_SPECIAL: Final = {"%tid.x": "thread", "%ntid.x": "threads", "%ctaid.x": "block"}
_COMPARE: Final = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_LOGIC: Final = {"and": "&", "or": "|", "xor": "^"}

_HEAD: Final = """
typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32;
typedef unsigned long long u64; typedef unsigned long long b64; typedef unsigned int b32;
typedef unsigned short b16; typedef short s16; typedef int s32; typedef long long s64;
static inline u32 shift_left(u32 a, u32 n) { return n > 31 ? 0 : a << n; }
static inline u64 shift_left(u64 a, u32 n) { return n > 63 ? 0 : a << n; }
static inline u32 shift_right(u32 a, u32 n) { return n > 31 ? 0 : a >> n; }
static inline u64 shift_right(u64 a, u32 n) { return n > 63 ? 0 : a >> n; }
static inline u32 shift_right(s32 a, u32 n) { return (u32)(a >> (n > 31 ? 31 : n)); }
static inline u64 shift_right(s64 a, u32 n) { return (u64)(a >> (n > 63 ? 63 : n)); }
static inline u32 permute(u32 a, u32 b, u32 order) {
    u64 both = (u64)b << 32 | a;
    u32 answer = 0;
    for (int i = 0; i < 4; i++) {
        u32 pick = order >> 4 * i & 15, byte = (u32)(both >> 8 * (pick & 7)) & 255;
        if (pick & 8) byte = byte & 128 ? 255 : 0;
        answer |= byte << 8 * i;
    }
    return answer;
}
template <class T> static inline T insert(T a, T b, u32 place, u32 length) {
    const u32 bits = 8 * sizeof(T);
    place &= 255, length &= 255;
    if (length == 0 || place >= bits) return b;
    T mask = (length >= bits ? ~(T)0 : ((T)1 << length) - 1) << place;
    return (a << place & mask) | (b & ~mask);
}
"""


class UnknownInstruction(Exception):
    """The text has an instruction that this module has no statement for."""


def _operands(text: str) -> list[str]:
    """Split at commas outside of braces and brackets."""
    return [item.strip() for item in re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,])+", text)]


def _value(operand: str) -> str:
    if operand in _SPECIAL:
        return _SPECIAL[operand]
    if operand.startswith("%"):
        return operand[1:]
    if re.fullmatch(r"-?\d+", operand):
        return f"{operand}LL" if int(operand) < 2**63 else f"{operand}ULL"
    if re.fullmatch(r"[A-Za-z_$][\w$]*", operand):
        return f"(u64){operand}"
    raise UnknownInstruction(f"operand {operand}")


def _address(operand: str) -> str:
    found = re.fullmatch(r"\[([%\w$]+)(?:\+(-?\d+))?\]", operand)
    if found is None:
        raise UnknownInstruction(f"address {operand}")
    return f"({_value(found[1])} + {found[2] or 0}LL)"


def _carrying(parts: list[str], d: str, items: list[str]) -> str:
    """Write an instruction of 32 bits that takes (`c` behind its name) or leaves (.cc) a carry."""
    name = parts[0]
    carry_in = "carry" if name.endswith("c") else "0"
    if name.startswith("mad"):
        product = f"(u64)(u32){items[0]} * (u32){items[1]}"
        part = f"({product}) >> 32" if parts[1] == "hi" else f"(u32)({product})"
        total = f"wide = ({part}) + (u64)(u32){items[2]} + {carry_in};"
    elif name.startswith("add"):
        total = f"wide = (u64)(u32){items[0]} + (u32){items[1]} + {carry_in};"
    else:
        total = f"wide = (u64)(u32){items[0]} - (u32){items[1]} - {carry_in};"
    leave = " carry = wide >> 32 & 1;" if "cc" in parts else ""
    return f"{total} {d} = (u32)wide;{leave}"


def _memory(parts: list[str], target: str, source: str) -> str:
    """Write a load or store of one value or of a vector."""
    kind = parts[-1]
    is_load = parts[0] == "ld"
    address, value = (source, target) if is_load else (target, source)
    if "param" in parts:
        return f"{_value(value)} = {address.strip('[]')};"
    names = [item.strip() for item in value.strip("{}").split(",")]
    place = f"(({kind} *){_address(address)})"
    if is_load:
        return " ".join(f"{_value(n)} = {place}[{i}];" for i, n in enumerate(names))
    return " ".join(f"{place}[{i}] = ({kind}){_value(n)};" for i, n in enumerate(names))


def _move(parts: list[str], d: str, source: str) -> str:
    """Write a move; of 64 bits also from or to a pair of halves."""
    if source.startswith("{"):
        low, high = (_value(item.strip()) for item in source.strip("{}").split(","))
        return f"{_value(d)} = (u64)(u32){high} << 32 | (u32){low};"
    if d.startswith("{"):
        low, high = (_value(item.strip()) for item in d.strip("{}").split(","))
        return f"{low} = (u32){_value(source)}; {high} = (u32)({_value(source)} >> 32);"
    return f"{_value(d)} = {_value(source)};"


def _arithmetic(parts: list[str], d: str, items: list[str]) -> str | None:
    """Write an instruction whose operands are registers and numbers, or return None."""
    name, kind = parts[0], parts[-1]
    if name in ("add", "sub"):
        return f"{d} = ({kind}){items[0]} {'+' if name == 'add' else '-'} ({kind}){items[1]};"
    if name in ("mul", "mad"):
        after = f" + {items[2]}" if name == "mad" else ""
        if parts[1] == "wide":
            wide = kind.replace("32", "64")
            product = f"(u64)(({wide})({kind}){items[0]} * ({wide})({kind}){items[1]})"
        else:
            unsigned = kind.replace("s", "u")
            product = f"({unsigned}){items[0]} * ({unsigned}){items[1]}"
            if parts[1] != "lo":
                return None
        return f"{d} = {product}{after};"
    if name in ("shl", "shr"):
        whole = kind.replace("b", "u")
        direction = "left" if name == "shl" else "right"
        return f"{d} = shift_{direction}(({whole}){items[0]}, (u32){items[1]});"
    simple: dict[str, Callable[[], str]] = {
        "and": lambda: f"{d} = {items[0]} {_LOGIC[name]} {items[1]};",
        "not": lambda: f"{d} = ({kind.replace('b', 'u')})~{items[0]};",
        "cvt": lambda: f"{d} = ({parts[1]})({kind}){items[0]};",
        "cvta": lambda: f"{d} = {items[0]};",
        "prmt": lambda: f"{d} = permute({items[0]}, (u32){items[1]}, (u32){items[2]});",
        "selp": lambda: f"{d} = {items[2]} ? {items[0]} : {items[1]};",
        "bfi": lambda: f"{d} = insert<{kind}>({', '.join(items)});",
        "setp": lambda: f"{d} = ({kind}){items[0]} {_COMPARE[parts[1]]} ({kind}){items[1]};",
    }
    simple |= {"or": simple["and"], "xor": simple["and"]}
    return simple[name]() if name in simple else None


def _statement(text: str) -> str:
    """Return the C++ of one instruction, without its guard."""
    opcode, _, rest = text.partition("\t") if "\t" in text else text.partition(" ")
    parts = opcode.strip().split(".")
    operands = _operands(rest)
    if parts[0] == "bra":
        return f"goto {_label(operands[0])};"
    if parts[0] == "ret":
        return "return;"
    if parts[0] == "bar":
        return ";"
    if parts[0] in ("ld", "st"):
        return _memory(parts, *operands)
    if parts[0] == "mov":
        return _move(parts, *operands)
    d, items = _value(operands[0]), [_value(item) for item in operands[1:]]
    if "cc" in parts or parts[0] in ("addc", "subc", "madc"):
        if parts[-1] != "u32":
            raise UnknownInstruction(text)
        return _carrying(parts, d, items)
    answer = _arithmetic(parts, d, items)
    if answer is None:
        raise UnknownInstruction(text)
    return answer


def _label(name: str) -> str:
    return name.replace("$", "_")


def _variables(ptx: str) -> Iterator[str]:
    """Write the module's constants and tables."""
    pattern = r"^\.(?:const|global) \.align (\d+) \.b8 ([\w$]+)\[(\d+)\] = (\{[^}]*\});"
    for align, name, count, values in re.findall(pattern, ptx, re.MULTILINE):
        yield f"alignas({align}) static u8 {name}[{count}] = {values};"


def _body(lines: list[str], counted: list[str]) -> Iterator[str]:
    for line in lines:
        text = line.split("//")[0].strip()
        declared = re.fullmatch(r"\.reg \.(\w+)\s+%(\w+)(?:<(\d+)>)?;", text)
        shared = re.fullmatch(r"\.shared \.align (\d+) \.b8 ([\w$]+)\[(\d+)\];", text)
        if not text or text.startswith((".loc", ".pragma")):
            continue
        if text in ("{", "}"):
            yield text
        elif declared:
            kind, name, count = declared.groups()
            if count is None:
                yield f"static {_CLASSES[kind]} {name};"
            else:
                names = ", ".join(f"{name}{i}" for i in range(int(count)))
                yield f"static {_CLASSES[kind]} {names};"
        elif shared:
            yield f"alignas({shared[1]}) static u8 {shared[2]}[{shared[3]}];"
        elif text.endswith(":"):
            yield f"{_label(text)};"
        else:
            guard = re.match(r"@(!?)%(p\d+)\s+", text)
            instruction = text[guard.end() if guard else 0 :].rstrip(";")
            opcode = re.split(r"\s", instruction)[0]
            if opcode not in counted:
                counted.append(opcode)
            condition = f"if ({guard[1]}{guard[2]}) " if guard else ""
            yield f"COUNT({counted.index(opcode)}) {condition}{{ {_statement(instruction)} }}"


def translate(ptx: str, entry: str) -> tuple[str, list[str]]:
    """Return C++ with `extern "C" void ENTRY(block, thread, threads, ...)`, and opcodes.

    block, thread: u32, which one runs; threads: u32, of a block; behind them the kernel's own
    parameters. With -DCOUNTED, `u64 counts[]` counts executed instructions, one number per opcode.
    """
    found = re.search(rf"\.entry {entry}\((.*?)\)(.*?)^\{{$(.*?)^\}}$", ptx, re.S | re.M)
    if found is None:
        raise UnknownInstruction(f"no kernel {entry}")
    parameters = re.findall(r"\.param \.(\w+) (\w+)", found[1])
    counted: list[str] = []
    body = "\n".join(_body(found[3].splitlines(), counted))
    arguments = ", ".join(
        ["u32 block", "u32 thread", "u32 threads", *(f"{kind} {name}" for kind, name in parameters)]
    )
    counter = (
        "#ifdef COUNTED\n"
        f'extern "C" {{ u64 counts[{len(counted)}]; }}\n'
        "#define COUNT(i) counts[i]++;\n#else\n#define COUNT(i)\n#endif\n"
    )
    return (
        f"{_HEAD}{counter}"
        + "\n".join(_variables(ptx))
        + f'\nextern "C" void {entry}({arguments}) {{\n'
        f"u64 wide; u32 carry = 0; (void)wide; (void)carry;\n{body}\n}}\n",
        counted,
    )
