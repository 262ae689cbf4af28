"""LLVM IR text to machine code: the pass pipeline, compiling many kernels through the cache on disk, and the
image of a whole plan."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tinyinfer.backends.cpu.code_image import CodeImage
from tinyinfer.backends.cpu.driver import ENTRIES, driver_text
from tinyinfer.backends.cpu.image import Part, link, read_object
from tinyinfer.backends.cpu.llvm_legal import legalise
from tinyinfer.backends.cpu.support import support_source
from tinyinfer.backends.cpu.target import CpuTarget
from tinyinfer.backends.cpu.wasm.link import RUN_TEXT, link_kernels
from tinyinfer.budget import check_time
from tinyinfer.errors import EPFail
from tinyinfer.runtime.plan import KernelSource, Plan, kernel_sources

if TYPE_CHECKING:
    from tinyinfer.backends.cpu.cache import KernelCache

PASSES = (
    "always_inliner",
    "global_dead_code_eliminate",
    "sroa",
    "simplify_cfg",
    "new_gvn",
    "instruction_combine",
    "simplify_cfg",
    "dead_code_elimination",
)
"""The whole middle end. The text already has its vectors, fused multiply-adds and unrolled tiles, so nothing
here unrolls, vectorises or turns loops into library calls. Register allocation and scheduling follow in the
back end."""

Progress = Callable[[int, int], None]


class KernelCompileError(EPFail):
    """LLVM refused a kernel's text; the message names the kernel and says why."""


_machines = threading.local()


def _target_machine(target: CpuTarget) -> Any:
    """A target machine of this thread for `target`: position-independent code, reachable within ±2 GiB."""
    cached: dict[CpuTarget, Any] = _machines.__dict__.setdefault("by_target", {})
    machine = cached.get(target)
    if machine is None:
        import llvmlite.binding as llvm

        if target.triple == llvm.get_process_triple():
            llvm.initialize_native_target()
            llvm.initialize_native_asmprinter()
        else:
            llvm.initialize_all_targets()
            llvm.initialize_all_asmprinters()
        machine = llvm.Target.from_triple(target.triple).create_target_machine(
            cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small"
        )
        cached[target] = machine
    return machine


def _optimised(text: str, target: CpuTarget) -> tuple[Any, Any]:
    """The module of `text` after `PASSES`, and the target machine that is to print it."""
    import llvmlite.binding as llvm

    machine = _target_machine(target)
    # known before the text is read, so that types have the target's sizes and alignments in it
    head = f'target datalayout = "{machine.target_data}"\ntarget triple = "{target.triple}"\n'
    if target.tune:
        # which instructions there are is the CPU's matter, and their order the tuned one's
        text = text.replace("attributes #0 = { ", f'attributes #0 = {{ "tune-cpu"="{target.tune}" ')
    try:
        # a context of its own: one kernel's types and constants must not pile up in the process's global one
        module = llvm.parse_assembly(head + legalise(text, target), llvm.create_context())
        module.verify()
    except RuntimeError as error:
        raise KernelCompileError(f"LLVM refused a kernel's text: {error}") from error
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = options.loop_interleaving = False
    options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    manager = llvm.create_new_module_pass_manager()
    for name in PASSES:
        getattr(manager, f"add_{name}_pass")()
    manager.run(module, builder)
    return module, machine


def compile_object(text: str, target: CpuTarget) -> bytes:
    """LLVM IR text as a relocatable object of `target`, position independent, small code model.

    Raises KernelCompileError where LLVM's parser or verifier refuses the text.
    """
    module, machine = _optimised(text, target)
    return machine.emit_object(module)


def assembly(text: str, target: CpuTarget) -> str:
    """The assembly listing of what `compile_object` makes of `text`."""
    module, machine = _optimised(text, target)
    return machine.emit_assembly(module)


def object_key(key: str, target: CpuTarget) -> str:
    """A kernel's name in the cache: hash of its key, the target, the compiler's version and the passes."""
    import llvmlite

    parts = (key, target.key(), llvmlite.__version__, PASSES)
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=20).hexdigest()


def compile_kernels(
    sources: Sequence[KernelSource],
    target: CpuTarget,
    threads: int,
    cache: KernelCache | None = None,
    progress: Progress | None = None,
) -> dict[str, bytes]:
    """Object code by `KernelSource.key`. Equal keys are compiled once, what `cache` holds not at all.

    With several threads and enough to do, worker processes share the compiling with this one. `progress` is
    called from this thread with (done, total) over distinct kernels. Raises KernelCompileError naming the
    kernel.
    """
    distinct = {source.key: source for source in sources}
    names = {key: object_key(key, target) for key in distinct}
    found: Mapping[str, bytes] = cache.get_many(list(names.values())) if cache is not None else {}
    objects = {key: found[name] for key, name in names.items() if name in found}
    missing = [source for key, source in distinct.items() if key not in objects]
    total = len(distinct)
    if progress is not None:
        progress(len(objects), total)
    if not missing:
        return objects
    made = _compile_all(missing, target, threads, progress, len(objects), total)
    if cache is not None:
        cache.put_many({names[key]: data for key, data in made.items()})
    objects.update(made)
    return objects


def _compile_all(
    sources: Sequence[KernelSource],
    target: CpuTarget,
    threads: int,
    progress: Progress | None,
    done: int,
    total: int,
) -> dict[str, bytes]:
    from tinyinfer.backends.cpu.worker import WorkerPool, worth_sharing

    made: dict[str, bytes] = {}
    with WorkerPool(target, worth_sharing(len(sources), threads)) as pool:
        for source in sources:
            check_time()
            pool.submit(source.key, source.name, source.text())
        for key, data in pool.results():
            check_time()
            made[key] = data
            if progress is not None:
                progress(done + len(made), total)
    return made


def compile_image(
    plan: Plan,
    target: CpuTarget,
    threads: int = 1,
    cache: KernelCache | None = None,
    progress: Progress | None = None,
) -> CodeImage:
    """All code that running `plan` on `target` takes, as one image: its kernels, the driver where the target
    has one, and what they call. Entries are kernels' keys, and the driver's `ENTRIES`.

    Raises KernelCompileError or image.LinkError naming the kernel.
    """
    sources = kernel_sources(plan.launches)
    return link_sources(sources, target, threads, cache, progress, driver_source(target))


def driver_source(target: CpuTarget) -> KernelSource | None:
    """The executor's code for a target, or None where its tables of 64-bit words cannot hold pointers as they
    are."""
    if target.pointer_bytes != 8:
        return None
    text = driver_text(target)
    return KernelSource(f"driver/{text}", ENTRIES[0], lambda: text)


def link_sources(
    sources: Mapping[str, KernelSource],
    target: CpuTarget,
    threads: int = 1,
    cache: KernelCache | None = None,
    progress: Progress | None = None,
    driver: KernelSource | None = None,
) -> CodeImage:
    """As `compile_image`, of kernels by their keys. For wasm32 the image is a module, whose entries are
    numbers of kernels (`wasm.link.link_kernels`)."""
    if target.architecture == "wasm32":
        return _link_wasm(sources, target, threads, cache, progress)
    wanted = [*([driver] if driver is not None else []), *sources.values()]
    objects = compile_kernels(wanted, target, threads, cache, progress)
    parts = []
    for source in wanted:
        title = "the driver" if source is driver else f"kernel {source.name}"
        functions = {name: name for name in ENTRIES} if source is driver else {source.key: source.name}
        item = read_object(objects[source.key], title, target.architecture)
        parts.append(Part(title, item, functions))
    return link([*parts, *_support(parts, target, cache)], target.architecture)


def _link_wasm(
    sources: Mapping[str, KernelSource],
    target: CpuTarget,
    threads: int,
    cache: KernelCache | None,
    progress: Progress | None,
) -> CodeImage:
    run = KernelSource(f"wasm/{RUN_TEXT}", "run", lambda: RUN_TEXT)
    objects = compile_kernels([run, *sources.values()], target, threads, cache, progress)
    kernels = [(f"kernel {source.name}", objects[source.key]) for source in sources.values()]
    code = link_kernels(kernels, objects[run.key], lambda name: support_object(name, target, cache))
    return CodeImage(code, {key: number for number, key in enumerate(sources)})


def support_object(name: str, target: CpuTarget, cache: KernelCache | None) -> bytes:
    """The object of the support library's function `name`, or KernelCompileError where it has none."""
    source = support_source(name, target)
    if source is None:
        raise KernelCompileError(f"a kernel calls {name}, and there is no such function for {target.triple}")
    return compile_kernels([source], target, 1, cache)[source.key]


def _support(parts: Sequence[Part], target: CpuTarget, cache: KernelCache | None) -> list[Part]:
    """What `parts` call of the support library, and what that calls."""
    found: dict[str, Part] = {}
    following = list(parts)
    while following:
        missing: dict[str, KernelSource] = {}
        for part in following:
            for name in part.object.undefined().values():
                if name in found or name in missing:
                    continue
                source = support_source(name, target)
                if source is None:
                    raise KernelCompileError(
                        f"{part.title}: it calls {name}, and there is no such function for {target.triple}"
                    )
                missing[name] = source
        objects = compile_kernels(list(missing.values()), target, 1, cache)
        following = [
            Part(name, read_object(objects[source.key], name, target.architecture), {}, shared=True)
            for name, source in missing.items()
        ]
        found |= {part.title: part for part in following}
    return list(found.values())
