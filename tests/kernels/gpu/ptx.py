"""PTX as C++: the compiled text of a kernel, for the host to run.

The host's build of a kernel's source leaves out what only the device has: inline PTX, vector loads,
shared memory, what the device's compiler made of the rest. This module takes that compiler's PTX
and writes each instruction as a statement with the meaning that NVIDIA's "PTX ISA" gives it, carry
flag included; `software/instructions.hpp` has what a statement calls. Registers are variables,
labels are labels, all state spaces are the host's memory. What it does not know is an error, so
nothing is left out silently.

`translate` makes one thread of a kernel, from its beginning to its end: a barrier waits for nobody,
so what other threads write before it is there only if they ran before. `software.modules` makes
whole launches, with the same statements.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

INSTRUCTIONS: Final = (Path(__file__).parent / "software" / "instructions.hpp").read_text()

_SPECIAL: Final = {
    "%tid.x": "here.thread", "%ntid.x": "here.threads",
    "%ctaid.x": "here.block", "%nctaid.x": "here.blocks",
    **dict.fromkeys(("%tid.y", "%tid.z", "%ctaid.y", "%ctaid.z"), "0U"),
    **dict.fromkeys(("%ntid.y", "%ntid.z", "%nctaid.y", "%nctaid.z"), "1U"),
}  # fmt: skip
"""Launches have one dimension."""
_SPECIAL_UNKNOWN: Final = re.compile(
    r"%(?:laneid|n?warpid|n?smid|gridid|clock\w*|globaltimer\w*|lanemask_\w+|\w+_smem_size|envreg\d+)"
)
_COMPARE: Final = {
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
    "lo": "<", "ls": "<=", "hi": ">", "hs": ">=",
}  # fmt: skip
_LOGIC: Final = {"and": "&", "or": "|", "xor": "^"}

_SPACE: Final = r"(?:\.(?:global|shared|local|const|param))?"
_ORDER: Final = r"(?:\.(?:weak|volatile|relaxed|acquire|release|acq_rel))?(?:\.(?:cta|gpu|sys))?"
_CACHE: Final = r"(?:\.(?:nc|ca|cg|cs|lu|cv|wb|wt))?"
_ANY: Final = r"[bus](?:16|32|64)"

# Instructions that write one register from operands a, b, c. t: the type, u: the same without a
# sign, w: twice as wide.
_EXPRESSIONS: Final = {
    r"add\.(?P<t>[us](?:16|32|64))": "({u}){a} + ({u}){b}",
    r"sub\.(?P<t>[us](?:16|32|64))": "({u}){a} - ({u}){b}",
    r"mul\.lo\.(?P<t>[us](?:16|32|64))": "({u})(1ULL * ({u}){a} * ({u}){b})",
    r"mul\.hi\.(?P<t>[us](?:16|32|64))": "high_product(({t}){a}, ({t}){b})",
    r"mul\.wide\.(?P<t>[us](?:16|32))": "({w})({t}){a} * ({w})({t}){b}",
    r"mad\.lo\.(?P<t>[us](?:16|32|64))": "({u})(1ULL * ({u}){a} * ({u}){b} + ({u}){c})",
    r"mad\.hi\.(?P<t>[us](?:16|32|64))": "({u})high_product(({t}){a}, ({t}){b}) + ({u}){c}",
    r"mad\.wide\.(?P<t>[us](?:16|32))": "(u64)(({w})({t}){a} * ({w})({t}){b}) + (u64){c}",
    r"div\.(?P<t>[us](?:16|32|64))": "quotient<{t}>({a}, {b})",
    r"rem\.(?P<t>[us](?:16|32|64))": "remainder<{t}>({a}, {b})",
    r"min\.(?P<t>[us](?:16|32|64))": "({t}){b} < ({t}){a} ? ({t}){b} : ({t}){a}",
    r"max\.(?P<t>[us](?:16|32|64))": "({t}){a} < ({t}){b} ? ({t}){b} : ({t}){a}",
    r"neg\.(?P<t>s(?:16|32|64))": "0 - ({u}){a}",
    r"abs\.(?P<t>s(?:16|32|64))": "({t}){a} < 0 ? 0 - ({u}){a} : ({u}){a}",
    r"and\.(?P<t>pred|b16|b32|b64)": "{a} & {b}",
    r"or\.(?P<t>pred|b16|b32|b64)": "{a} | {b}",
    r"xor\.(?P<t>pred|b16|b32|b64)": "{a} ^ {b}",
    r"not\.pred": "!{a}",
    r"not\.(?P<t>b(?:16|32|64))": "~({u}){a}",
    r"shl\.(?P<t>b(?:16|32|64))": "shift_left<{u}>({a}, {b})",
    r"shr\.(?P<t>[bus](?:16|32|64))": "shift_right<{t}>({a}, {b})",
    r"shf\.l\.wrap\.b32": "funnel_left({a}, {b}, (u32){c} & 31)",
    r"shf\.r\.wrap\.b32": "funnel_right({a}, {b}, (u32){c} & 31)",
    r"shf\.l\.clamp\.b32": "funnel_left({a}, {b}, (u32){c} < 32 ? {c} : 32)",
    r"shf\.r\.clamp\.b32": "funnel_right({a}, {b}, (u32){c} < 32 ? {c} : 32)",
    r"prmt\.b32": "permute({a}, {b}, {c})",
    r"bfe\.(?P<t>[us](?:32|64))": "extract<{t}>({a}, {b}, {c})",
    r"bfi\.(?P<t>b(?:32|64))": "insert<{t}>({a}, {b}, {c}, {d})",
    r"popc\.b(?:32|64)": "__builtin_popcountll({a})",
    r"clz\.(?P<t>b(?:32|64))": "leading_zeros<{t}>({a})",
    r"brev\.(?P<t>b(?:32|64))": "reversed<{t}>({a})",
    r"selp\.(?P<t>[bus](?:16|32|64))": "{c} ? ({u}){a} : ({u}){b}",
    r"cvt\.(?P<to>[us](?:8|16|32|64))\.(?P<t>[us](?:8|16|32|64))": "({to})({t}){a}",
    r"cvta(?:\.to)?\.(?:global|shared|local|const|param)\.u64": "{a}",
    r"mov\.(?:pred|[bus](?:16|32|64))": "{a}",
    rf"setp\.(?P<compare>eq|ne)\.(?P<t>{_ANY})": "({t}){a} {compare} ({t}){b}",
    r"setp\.(?P<compare>lt|le|gt|ge)\.(?P<t>[us](?:16|32|64))": "({t}){a} {compare} ({t}){b}",
    r"setp\.(?P<compare>lo|ls|hi|hs)\.(?P<t>u(?:16|32|64))": "({t}){a} {compare} ({t}){b}",
}


class UnknownInstruction(Exception):
    """The text has something that this module has no C++ for."""


def _operands(text: str) -> list[str]:
    """Split at commas outside of braces and brackets."""
    return [item.strip() for item in re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,])+", text)]


def _value(operand: str) -> str:
    """Return a register, a number or the address of a variable."""
    if operand in _SPECIAL:
        return _SPECIAL[operand]
    if re.fullmatch(r"%\w+", operand) and not _SPECIAL_UNKNOWN.fullmatch(operand):
        return f"reg_{operand[1:]}"
    if re.fullmatch(r"-?(?:\d+|0[xX][\da-fA-F]+)U?", operand):
        return f"{int(operand.rstrip('U'), 0) % 2**64:#x}ULL"
    if re.fullmatch(r"[A-Za-z_$][\w$]*", operand):
        return f"(u64)sym_{operand}"
    raise UnknownInstruction(f"operand {operand}")


def _address(operand: str) -> str:
    found = re.fullmatch(r"\[([%\w$]+)(?:\+(-?\d+))?\]", operand)
    if found is None:
        raise UnknownInstruction(f"address {operand}")
    return f"{_value(found[1])} + {found[2] or 0}LL"


def _carrying(opcode: str, operands: list[str]) -> str | None:
    """Write an instruction of 32 bits that takes (`c` behind its name) or leaves (.cc) a carry."""
    found = re.fullmatch(
        r"(?:(add|sub)(c?)|(mad)(c?)\.(lo|hi))(\.cc)?\.[us]32", opcode
    )  # fmt: skip
    if found is None or not (found[2] or found[4] or found[6]):
        return None
    d, *items = map(_value, operands)
    carry_in = "carry" if found[2] or found[4] else "0"
    if found[3]:
        if opcode.endswith("s32") and found[5] == "hi":
            return None
        product = f"(u64)(u32){items[0]} * (u32){items[1]}"
        part = f"({product}) >> 32" if found[5] == "hi" else f"(u32)({product})"
        total = f"wide = ({part}) + (u64)(u32){items[2]} + {carry_in};"
    else:
        sign = "+" if found[1] == "add" else "-"
        total = f"wide = (u64)(u32){items[0]} {sign} (u32){items[1]} {sign} {carry_in};"
    leave = " carry = wide >> 32 & 1;" if found[6] else ""
    return f"{total} {d} = (u32)wide;{leave}"


def _memory(opcode: str, operands: list[str]) -> str | None:
    """Write a load or store of one value or of a vector."""
    found = re.fullmatch(
        rf"(ld|st){_ORDER}{_SPACE}{_CACHE}(?:\.v([24]))?\.([bus](?:8|16|32|64))", opcode
    )
    if found is None:
        return None
    is_load, kind = found[1] == "ld", found[3]
    value, address = operands if is_load else reversed(operands)
    names = [_value(item.strip()) for item in value.strip("{}").split(",")]
    if len(names) != int(found[2] or 1):
        raise UnknownInstruction(f"{opcode} {', '.join(operands)}")
    place = f"{kind} *place = at<{kind}, {len(names)}>({_address(address)});"
    if is_load:
        moves = (f"{name} = place[{i}];" for i, name in enumerate(names))
    else:
        moves = (f"place[{i}] = ({kind}){name};" for i, name in enumerate(names))
    is_own = re.search(r"\.(local|const|param)\b", opcode)
    return f"{'' if is_own else 'touch(); '}{place} {' '.join(moves)}"


def _atomic(opcode: str, operands: list[str]) -> str | None:
    """Write an atomic operation, or a reduction, which answers nothing."""
    found = re.fullmatch(
        rf"(atom|red){_ORDER}(?:\.(?:global|shared))?\.(?:(add)\.(u32|s32|u64)"
        r"|(and|or|xor|exch|cas)\.(b32|b64)|(min|max)\.([us](?:32|64))|(inc|dec)\.(u32))",
        opcode,
    )
    if found is None:
        return None
    name, kind = (item for item in found.groups()[1:] if item is not None)
    if found[1] == "red":
        if name in ("exch", "cas"):
            return None
        operands = ["_", *operands]
    d, address, *items = operands
    if len(items) != (2 if name == "cas" else 1):
        return None
    call = f"atomic_{name}<{kind}>({_address(address)}, {', '.join(map(_value, items))})"
    return f"touch(); {call};" if d == "_" else f"touch(); {_value(d)} = {call};"


def _pack(opcode: str, operands: list[str]) -> str | None:
    """Write a move from or to a register's two or four parts."""
    found = re.fullmatch(r"mov\.(?:u|b)(32|64)", opcode)
    if found is None or not any(item.startswith("{") for item in operands):
        return None
    d, source = operands
    parts = (d if d.startswith("{") else source).strip("{}").split(",")
    parts = [item.strip() for item in parts]
    width = int(found[1]) // len(parts)
    if width not in (16, 32) or (d.startswith("{") and source.startswith("{")):
        return None
    if d.startswith("{"):
        whole = f"u64 whole = {_value(source)};"
        pieces = (
            f"{_value(item)} = (u{width})(whole >> {i * width});"
            for i, item in enumerate(parts)
            if item != "_"
        )
        return f"{whole} {' '.join(pieces)}"
    whole = " | ".join(f"(u64)(u{width}){_value(x)} << {i * width}" for i, x in enumerate(parts))
    return f"{_value(d)} = {whole};"


def _compare(opcode: str, operands: list[str]) -> str | None:
    """Write a comparison that is joined with a predicate, or that leaves its contrary as well."""
    found = re.fullmatch(r"(setp\.\w+)(?:\.(and|or|xor))?(\.\w+)", opcode)
    if found is None or (found[2] is None and "|" not in operands[0]):
        return None
    d, _, contrary = operands[0].partition("|")
    answer = f"({_expression(found[1] + found[3], operands[1:3])})"
    joined = ""
    if found[2]:
        other = operands[3]
        other = f"!{_value(other[1:])}" if other.startswith("!") else _value(other)
        joined = f" {_LOGIC[found[2]]} {other}"
    elif len(operands) != 3:
        return None
    no = f" {_value(contrary)} = !answer{joined};" if contrary else ""
    return f"bool answer = {answer}, yes = answer{joined};{no} {_value(d)} = yes;"


def _expression(opcode: str, operands: list[str]) -> str:
    """Return the value that an instruction writes."""
    for pattern, template in _EXPRESSIONS.items():
        found = re.fullmatch(pattern, opcode)
        if found is None:
            continue
        if len(operands) != len(set(re.findall(r"\{([abcd])\}", template))):
            break
        fields = found.groupdict()
        kind = fields.get("t", "")
        fields["u"] = re.sub("^[bs]", "u", kind)
        fields["w"] = re.sub(r"\d+", lambda bits: str(2 * int(bits[0])), kind)
        fields["compare"] = _COMPARE.get(fields.get("compare", ""), "")
        return template.format(**dict(zip("abcd", map(_value, operands), strict=False)), **fields)
    raise UnknownInstruction(f"{opcode} {', '.join(operands)}")


_STATEMENTS: Final[tuple[Callable[[str, list[str]], str | None], ...]] = (
    _memory, _atomic, _carrying, _pack, _compare,
)  # fmt: skip


def statement(text: str) -> str:
    """Return the C++ of one instruction, without its guard."""
    opcode, _, rest = text.replace("\t", " ").partition(" ")
    operands = _operands(rest)
    if opcode in ("bra", "bra.uni"):
        return f"goto {_label(operands[0])};"
    if opcode in ("ret", "exit", "ret.uni"):
        return "return;"
    if opcode == "trap":
        return "stop(TRAPPED);"
    if text.split() in (["bar.sync", "0"], ["barrier.sync", "0"]):
        return "barrier(__LINE__);"
    if re.fullmatch(r"membar\.(cta|gl|sys)|fence(\.(sc|acq_rel))?\.(cta|gpu|sys)", opcode):
        return ";"
    for write in _STATEMENTS:
        answer = write(opcode, operands)
        if answer is not None:
            return answer
    return f"{_value(operands[0])} = {_expression(opcode, operands[1:])};"


def _label(name: str) -> str:
    return name.replace("$", "_")


def _declared(text: str, storage: str) -> str | None:
    """Write the declaration of registers or of a variable that a thread or block has."""
    found = re.fullmatch(r"\.reg \.(?:(pred)|[bus](16|32|64))\s+%(\w+)(?:<(\d+)>)?;", text)
    if found:
        kind = "bool" if found[1] else f"u{found[2]}"
        names = [found[3]] if found[4] is None else [f"{found[3]}{i}" for i in range(int(found[4]))]
        registers = ", ".join(f"reg_{name} = ({kind})UNWRITTEN" for name in names)
        return f"{storage}{kind} {registers};" if names else ""
    found = re.fullmatch(r"\.local \.align (\d+) \.b8\s+([\w$]+)\[(\d+)\];", text)
    if found:
        name = f"sym_{found[2]}"
        return f"alignas({found[1]}) u8 {name}[{found[3]}]; leave_unwritten({name}, {found[3]});"
    return None


def body(lines: list[str], storage: str, count: Callable[[str], str]) -> Iterator[str]:
    """Yield the C++ of a kernel's lines.

    storage: of registers; count: returns what stands before an instruction's statement.
    """
    for line in lines:
        text = " ".join(line.split("//")[0].split())
        if not text or text.startswith((".loc ", ".pragma ", ".shared ")):
            continue
        declared = _declared(text, storage)
        if text in ("{", "}"):
            yield text
        elif declared is not None:
            yield declared
        elif re.fullmatch(r"[\w$]+:", text):
            yield f"{_label(text)};"
        elif re.fullmatch(r"[@\w][^;]*;", text):
            guard = re.match(r"@(!?)(%\w+) ", text)
            instruction = text[guard.end() if guard else 0 : -1].strip()
            condition = f"if ({guard[1]}{_value(guard[2])}) " if guard else ""
            before = count(instruction.split(" ")[0])
            yield f"{before}{condition}{{ {statement(instruction)} }}"
        else:
            raise UnknownInstruction(text)


def variables(ptx: str) -> Iterator[str]:
    """Yield the C++ of a module's constants and tables; all but those in shared memory."""
    pattern = (
        r"^(?:\.(?:visible|common|weak) )*\.(?:const|global) (?:\.align (\d+) )?"
        r"\.([bus](?:8|16|32|64)) ([\w$]+)(?:\[(\d+)\])?(?: = ([^;]*))?;"
    )
    for align, kind, name, count, values in re.findall(pattern, ptx, re.MULTILINE):
        if not re.fullmatch(r"[-\w{}, ]*", values):
            raise UnknownInstruction(f"{name} = {values[:100]}")
        start = f" = {{{values.strip('{}')}}}" if values else ""
        yield f"alignas({align or 8}) static {kind} sym_{name}[{count or 1}]{start};"


def shared_variables(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield name, alignment and bytes of what stands in shared memory."""
    pattern = (
        r"^\s*(?:\.(?:visible|weak) )*\.shared (?:\.align (\d+) )?"
        r"\.[bus](8|16|32|64) ([\w$]+)(?:\[(\d+)\])?;"
    )
    for align, bits, name, count in re.findall(pattern, text, re.MULTILINE):
        width = int(bits) // 8
        yield name, int(align or width), width * int(count or 1)


def entry(ptx: str, name: str) -> tuple[list[tuple[str, str]], str, str]:
    """Return a kernel's parameters (type, name), its directives and the lines of its body."""
    found = re.search(rf"\.entry {re.escape(name)}\((.*?)\)(.*?)^\{{$(.*?)^\}}$", ptx, re.S | re.M)
    if found is None:
        raise UnknownInstruction(f"no kernel {name}")
    return re.findall(r"\.param (?:\.align \d+ )?\.(\w+) ([\w$]+)", found[1]), found[2], found[3]


def translate(ptx: str, name: str) -> tuple[str, list[str]]:
    """Return C++ with `extern "C" void NAME(block, thread, threads, ...)`, and opcodes.

    block, thread: u32, which one runs; threads: u32, of a block; behind them the kernel's own
    parameters. With -DCOUNTED, `u64 counts[]` counts executed instructions, one number per opcode.
    """
    parameters, _, text = entry(ptx, name)
    counted: list[str] = []

    def count(opcode: str) -> str:
        if opcode not in counted:
            counted.append(opcode)
        return f"COUNT({counted.index(opcode)}) "

    statements = "\n".join(body(text.splitlines(), "static ", count))
    arguments = ", ".join(
        ["u32 block", "u32 thread", "u32 threads", *(f"{kind} arg_{n}" for kind, n in parameters)]
    )
    places = [f"u64 sym_{name} = (u64)&arg_{name};" for _, name in parameters]
    places += [
        f"alignas({align}) static u8 sym_{name}[{size}];"
        for source in (re.sub(r"^\.visible \.entry.*?^\}$", "", ptx, flags=re.S | re.M), text)
        for name, align, size in shared_variables(source)
    ]
    counter = (
        "#ifdef COUNTED\n"
        f'extern "C" {{ u64 counts[{len(counted)}]; }}\n'
        "#define COUNT(i) counts[i]++;\n#else\n#define COUNT(i)\n#endif\n"
        "#define barrier(site)\n#define touch()\n"
    )
    return (
        f"{INSTRUCTIONS}{counter}"
        + "\n".join(variables(ptx))
        + f'\nextern "C" void {name}({arguments}) {{\n'
        "struct { u32 block, thread, threads; } here = {block, thread, threads};\n"
        f"u64 wide; u32 carry = 0;\n{chr(10).join(places)}\n{statements}\n}}\n",
        counted,
    )
