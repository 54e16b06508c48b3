"""What the study of compiled steps reads from a compiler's text, and what it makes of that."""

import importlib.metadata
import math
import os
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from benchmarks.cli import main
from benchmarks.config.selection import select
from benchmarks.reporting import topologies
from benchmarks.reporting.programs import Program
from benchmarks.studies import compiled, compiled_programs, compiled_training
from benchmarks.studies.compiled_programs import Cell
from benchmarks.training.records import FolderError

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "compiled"


def work(*lines, before=""):
    body = "\n".join(f"  {line}" for line in lines)
    return Program(
        f"HloModule jit_step\n\n{before}\nENTRY %main (p: f32[256]) -> f32[256] {{\n{body}\n}}\n"
    ).work


ARGUMENT = "%p = f32[256]{0:T(256)} parameter(0)"
CYCLES = 'backend_config={"window_config":{"estimated_cycles":"10"}}'
FUSED = """%fused (a: f32[256]) -> f32[256] {
  %a = f32[256]{0:T(256)} parameter(0)
  ROOT %b = f32[256]{0:T(256)} add(%a, %a)
}
"""


def test_a_fusion_reads_and_writes_what_is_in_hbm():
    found = work(
        ARGUMENT,
        "%q = bf16[256]{0:T(256)(2,1)S(1)} constant({...})",
        f"ROOT %f = (f32[256]{{0:T(256)}}, pred[256]{{0}}) fusion(%p, %q), calls=%fused, {CYCLES}",
        before=FUSED.replace("(a: f32[256])", "(a: f32[256], c: bf16[256])").replace(
            "  ROOT", "  %c = bf16[256]{0:T(256)(2,1)S(1)} parameter(1)\n  ROOT"
        ),
    )
    assert found == (1024 + 1024 + 256, 10, {}, {})


def test_a_copy_to_the_small_memory_is_read_once_and_its_copy_not_at_all():
    found = work(
        ARGUMENT,
        "%s = (f32[256]{0:T(256)S(1)}, f32[256]{0:T(256)}, u32[]{:S(2)}) copy-start(%p)",
        "%d = f32[256]{0:T(256)S(1)} copy-done(%s)",
        "%t = ((f32[256]{0:T(256)}), f32[64]{0:T(256)S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[0:64]}",
        f"ROOT %f = f32[256]{{0:T(256)S(1)}} fusion(%d), kind=kLoop, calls=%fused, {CYCLES}",
        before=FUSED,
    )
    assert found.hbm_bytes == 1024 + 256


def test_a_fusion_that_takes_a_slice_reads_no_more_and_one_that_puts_it_back_writes_no_more():
    sliced = """%fused (a: f32[256], i: s32[]) -> f32[256] {
  %a = f32[256]{0} parameter(0)
  %i = s32[] parameter(1)
  %c = f32[256]{0} bitcast(%a)
  %s = f32[8]{0} dynamic-slice(%c, %i), dynamic_slice_sizes={8}
  ROOT %u = f32[256]{0} dynamic-update-slice(%a, %s, %i)
}
"""
    found = work(
        ARGUMENT,
        "%i = s32[]{:T(128)S(6)} constant(3)",
        "ROOT %f = f32[256]{0} fusion(%p, %i), kind=kLoop, calls=%fused",
        before=sliced,
    )
    assert found.hbm_bytes == 32 + 32


def test_a_loop_counts_as_often_as_it_turns():
    loop = f"""{FUSED}
%body (t: (s32[], f32[256])) -> (s32[], f32[256]) {{
  %t = (s32[]{{:T(128)}}, f32[256]{{0}}) parameter(0)
  %x = f32[256]{{0}} get-tuple-element(%t), index=1
  %y = f32[256]{{0}} all-gather(%x), dimensions={{0}}, {CYCLES}
  ROOT %r = (s32[], f32[256]{{0}}) tuple(%x, %y)
}}

%condition (t: (s32[], f32[256])) -> pred[] {{
  %n = s32[]{{:T(128)}} constant(7), metadata={{op_name="jit(step)/while"}}
  %t.1 = (s32[]{{:T(128)}}, f32[256]{{0}}) parameter(0)
  %c = s32[]{{:T(128)}} get-tuple-element(%t.1), index=0
  ROOT %lt = pred[]{{:T(512)}} compare(%c, %n), direction=LT
}}
"""
    found = work(
        ARGUMENT,
        "ROOT %w = (s32[]{:T(128)}, f32[256]{0}) while(%p), condition=%condition, body=%body",
        before=loop,
    )
    assert found == (7 * 2048, 70, {"all-gather": 7}, {"all-gather": 7 * 1024})


def test_of_a_conditional_it_is_the_cheapest_branch_and_all_collectives():
    branches = """%dear (x: f32[256]) -> f32[256] {
  %x = f32[256]{0} parameter(0)
  ROOT %y = f32[256]{0} all-reduce(%x), to_apply=%sum, backend_config={"estimated_cycles":"99"}
}

%cheap (z: f32[256]) -> f32[256] {
  ROOT %z = f32[256]{0} parameter(0)
}
"""
    found = work(
        ARGUMENT,
        "%i = s32[] constant(1)",
        "ROOT %c = f32[256]{0} conditional(%i, %p, %p), branch_computations={%dear, %cheap}",
        before=branches,
    )
    assert found == (0, 0, {"all-reduce": 1}, {"all-reduce": 1024})


def test_a_collective_is_as_large_as_what_it_takes_or_gives_also_if_it_ends_later_or_is_within_a_fusion():
    within = """%fused (a: f32[256]) -> f32[64] {
  %a = f32[256]{0} parameter(0)
  ROOT %b = f32[64]{0} reduce-scatter(%a), dimensions={0}, to_apply=%sum
}
"""
    found = work(
        ARGUMENT,
        "%s = (f32[256]{0}, f32[1024]{0}) all-gather-start(%p), dimensions={0}",
        "%d = f32[1024]{0} all-gather-done(%s)",
        "%r = (f32[]{:T(128)}, f32[]{:T(128)}) all-reduce(%n, %n), to_apply=%sum",
        "%n = f32[]{:T(128)} constant(0)",
        "ROOT %f = f32[64]{0} fusion(%p), kind=kCustom, calls=%fused",
        before=within,
    )
    assert found.collectives == {"all-gather": 1, "all-reduce": 1, "reduce-scatter": 1}
    assert found.sent == {"all-gather": 4096, "all-reduce": 8, "reduce-scatter": 1024}


# The study


def row(peak=1.0, cycles=100):
    found = dict.fromkeys(topologies.COLLECTIVES, 0)
    sizes = {f"{kind}, bytes": 0 for kind in found}
    rest = {"parameters of it": 1000, "fits": "yes", "HBM, bytes": 28_000, "temporaries, GiB": 0.0}
    return {**rest, **found, **sizes, "peak, GiB": peak, "cycles": cycles, "compilation, CPU s": 2.0}


@pytest.fixture
def compiler(monkeypatch):
    """Returns what stands for the compiler: a list of what it was asked, which answers each alike."""
    asked = []

    class Compiler:
        def __call__(self, measure, cell):
            asked.append(cell)
            if isinstance(cell, Cell):
                return row()
            return {**row(), "batch size": 4, "cycles of the optimizer": 10}

    versions = importlib.metadata.version
    monkeypatch.setattr(compiled, "Compiler", Compiler)
    monkeypatch.setattr(compiled, "check_libtpu", lambda: None)
    monkeypatch.setattr(compiled, "version", lambda name: "1.2" if name == "libtpu" else versions(name))
    return asked


def test_quick_mode_writes_all_files_that_are_committed_of_the_full_one(compiler, tmp_path):
    assert main(["compiled", "--quick", "--output", str(tmp_path)]) == 0
    assert set(os.listdir(tmp_path)) == set(os.listdir(RESULTS))
    assert "python -m benchmarks compiled --output benchmarks/results/compiled" in compiled.__doc__
    quick, full = ((folder / "table.md").read_text() for folder in (tmp_path, RESULTS))
    assert "Measured with --quick" in quick
    assert "Measured with --quick" not in full


def test_it_compiles_only_what_its_folder_lacks(compiler, tmp_path, monkeypatch):
    def stop(self, measure, cell):
        if cell == compiled.QUICK[2]:
            raise KeyboardInterrupt
        return {"fits": "no, needs 2 of 1 GiB"} if cell == compiled.QUICK[0] else row()

    with monkeypatch.context() as patched:
        patched.setattr(compiled.Compiler, "__call__", stop)
        assert main(["compiled", "--quick", "--output", str(tmp_path)]) == 130
    assert main(["compiled", "--quick", "--output", str(tmp_path)]) == 0
    assert compiler == [*compiled.QUICK[2:], *compiled.QUICK_TRAININGS]
    assert "no, needs 2 of 1 GiB" in (tmp_path / "table.md").read_text()


def test_it_does_not_continue_what_other_versions_began(compiler, tmp_path, monkeypatch):
    assert main(["compiled", "--quick", "--output", str(tmp_path)]) == 0
    monkeypatch.setattr(compiled, "version", lambda name: "1.3")
    with pytest.raises(FolderError, match=r"compiled.csv is of another environment: .* and '1.3' here"):
        compiled.run(True, tmp_path)


def test_ratios_are_to_adamw_for_the_same_chips_and_parameters():
    cells = [Cell("1 v5e", "any", "Lion"), Cell("1 v5e", "any", "AdamW"), Cell("4 v5e", "any", "Lion")]
    rows = [row(cycles=50, peak=3.0), row(), row()]
    frame = pd.DataFrame([{**cell._asdict(), **one} for cell, one in zip(cells, rows, strict=True)])
    found = compiled.with_ratios(frame)
    np.testing.assert_array_equal(found["cycles / AdamW"], [0.5, 1, np.nan])
    np.testing.assert_array_equal(found["peak, GiB / AdamW"], [3, 1, np.nan])
    np.testing.assert_array_equal(found["bytes / parameter"], [28, 28, 4 * 28])


def test_a_compiler_that_ends_its_process_is_a_row_and_the_next_program_has_another(monkeypatch):
    class Broken:
        def submit(self, *arguments):
            raise BrokenProcessPool

    processes = [Broken(), Broken()]
    monkeypatch.setattr(compiled, "_process", lambda: processes.pop())
    assert compiled.Compiler()(None, None) == {"fits": compiled.ENDED}
    assert processes == []


def test_a_program_that_takes_too_long_to_compile_ends_its_process():
    endless = "compiled_programs.limit(1)\nwhile True: pass"
    code = f"from benchmarks.studies import compiled_programs\n{endless}"
    done = subprocess.run([sys.executable, "-c", code], cwd=RESULTS.parents[2], check=False)
    assert done.returncode == -signal.SIGPROF


def test_what_fits_no_chip_is_told_in_words():
    assert compiled_programs.verdict(15.7, 15.75) == "yes"
    assert compiled_programs.verdict(15.8, 15.75) == "no, needs 15.8 of 15.75 GiB"
    error = RuntimeError("RESOURCE_EXHAUSTED: Ran out of memory, needs (24.00G),\nhas (15.75G). More: x")
    told = "no, the compiler says: Ran out of memory, needs (24.00G), has (15.75G)"
    assert compiled_programs.refusal(error) == told
    with pytest.raises(RuntimeError, match="INTERNAL"):
        compiled_programs.refusal(RuntimeError("INTERNAL: x"))


def test_without_libtpu_it_is_one_line_that_tells_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(topologies, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        main(["compiled", "--output", str(tmp_path)])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("needs libtpu, which is not installed; pip install '.[accelerators]' brings it")


@pytest.mark.parametrize(
    ("network", "leaves", "size"),
    [("Llama, 1.3 B", 219, 1_339_082_752), ("Llama, 6.7 B", 291, 6_738_415_616)],
)
def test_the_large_networks_are_shapes_only(network, leaves, size):
    shapes = compiled_programs.shapes_of(network)
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)]
    assert (len(sizes), sum(sizes)) == (leaves, size)


def test_the_training_steps_are_presets_of_the_papers():
    for paper, dataset, model, optimizer, dtype in compiled_training.TRAININGS:
        assert select(dataset, model, [optimizer], [0], {"dtype": [dtype]}, paper=paper)
