"""Tests the analysis of compiled programs: trip counts, products, collectives, kernels."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.ahead_of_time import costs, hlo, trips

N, LAYERS = 64, 7
PRODUCT = 2 * N**3


def stacked(x, w, scan: bool):
    """LAYERS products, each followed by a tanh, so that XLA cannot merge them."""
    layer = lambda x, w: (jnp.tanh(x @ w), None)  # noqa: E731
    if scan:
        return jax.lax.scan(layer, x, w)[0]
    for i in range(LAYERS):
        x, _ = layer(x, w[i])
    return x


def compiled(f):
    x, w = jnp.ones((N, N)), jnp.ones((LAYERS, N, N))
    return jax.jit(f).lower(x, w).compile()


@functools.cache
def text(scan: bool, grad: bool) -> str:
    f = functools.partial(stacked, scan=scan)
    return compiled(jax.grad(lambda x, w: f(x, w).sum(), (0, 1)) if grad else f).as_text()


@pytest.mark.parametrize(("grad", "products"), [(False, LAYERS), (True, 3 * LAYERS)])
def test_a_scan_costs_what_its_loop_costs(grad, products):
    scanned = costs.measure(text(True, grad))
    assert scanned.products == products * PRODUCT
    assert costs.measure(text(False, grad)).products == scanned.products
    assert not scanned.loops


def test_control_without_trip_counts_a_scan_costs_one_layer(monkeypatch):
    """Trip counts come from the compiler's annotation, or from the loop's condition without one."""
    unwritten = text(True, False).replace("known_trip_count", "unknown")
    assert costs.measure(unwritten).products == LAYERS * PRODUCT
    monkeypatch.setattr(trips, "count", lambda *loop: None)
    found = costs.measure(unwritten)
    assert found.products == PRODUCT
    assert len(found.loops) == 1


def test_control_the_compilers_own_count_has_the_body_once():
    f = functools.partial(stacked, scan=True)
    counted = compiled(f).cost_analysis()["flops"]
    assert counted < 2 * PRODUCT < costs.measure(text(True, False)).products


def test_trip_counts_of_nested_loops_multiply():
    def f(x, w):
        outer = lambda x, _: (stacked(x, w, scan=True), None)  # noqa: E731
        return jax.lax.scan(outer, x, None, length=5)[0]

    assert costs.measure(compiled(f).as_text()).products == 5 * LAYERS * PRODUCT


def module(*lines: str, shape: str = "f32[8,4]", before: str = "") -> str:
    """A module for 8 devices whose entry computation is a parameter %p followed by `lines`."""
    body = "\n".join(f"  {line}" for line in lines)
    return (
        f"HloModule m, is_scheduled=true, num_partitions=8\n\n{before}\n"
        f"ENTRY %main (p: {shape}) -> {shape} {{\n  %p = {shape} parameter(0)\n{body}\n}}\n"
    )


# Collectives of 128 bytes in groups of 4 devices: (instruction, payload bytes, wire bytes).
GROUPS = "replica_groups={{0,1,2,3},{4,5,6,7}}"
KINDS = {
    "all-gather": ("f32[32,4] all-gather(%p), GROUPS, dimensions={0}", 512, 384),
    "all-reduce": ("f32[8,4] all-reduce(%p), GROUPS, to_apply=%add", 128, 192),
    "reduce-scatter": ("f32[2,4] reduce-scatter(%p), GROUPS, dimensions={0}", 128, 96),
    "all-to-all": ("f32[8,4] all-to-all(%p), GROUPS, dimensions={0}", 128, 96),
    "collective-permute": (
        "f32[8,4] collective-permute(%p), source_target_pairs={{0,1},{1,0}}",
        128,
        128,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_payload_and_wire_bytes(kind, asynchronous):
    line, payload, wire = KINDS[kind]
    lines = ["%c = " + line.replace("GROUPS", GROUPS)]
    if asynchronous:
        lines[0] = lines[0].replace(f"{kind}(", f"{kind}-start(")
        lines.append(f"%d = f32[8,4] {kind}-done(%c)")
    found = costs.measure(module(*lines))
    assert (dict(found.payload), dict(found.wire)) == ({kind: payload}, {kind: wire})
    assert dict(found.calls) == {kind: 1}


@pytest.mark.parametrize(("form", "names"), [("async", "calls"), ("call", "to_apply")])
def test_a_collective_in_an_asynchronous_computation_counts_once(form, names):
    before = (
        "%inner (q: f32[8,4]) -> f32[2,4] {\n  %q = f32[8,4] parameter(0)\n"
        f"  ROOT %r = f32[2,4] reduce-scatter(%q), {GROUPS}, dimensions={{0}}\n}}\n"
    )
    text = module(
        f"%s = ((f32[8,4]), f32[2,4]) {form}-start(%p), {names}=%inner",
        f"%d = f32[2,4] {form}-done(%s), {names}=%inner",
        before=before,
    )
    assert dict(costs.measure(text).wire) == {"reduce-scatter": 96}


CHAIN = """%begin (q: f32[8,4]) -> (f32[8,4], f32[32,4]) {
  %q = f32[8,4] parameter(0)
  %g = f32[32,4] all-gather(%q), GROUPS, frontend_attributes={chain_id="3"}
  ROOT %s = (f32[8,4], f32[32,4]) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%middle (q: f32[8,4]) -> f32[32,4] {
  %q = f32[8,4] parameter(0)
  ROOT %g = f32[32,4] all-gather(%q), GROUPS, frontend_attributes={chain_id="3"}
}
"""


def test_an_asynchronous_gather_counts_where_its_chain_starts():
    lines = (
        "%a = (f32[8,4], f32[32,4]) fusion(%p), kind=kCustom, calls=%begin",
        "%b = f32[32,4] fusion(%p), kind=kOutput, calls=%middle",
        "%c = f32[32,4] fusion(%p), kind=kCustom, calls=%middle",
    )
    before = CHAIN.replace("GROUPS", GROUPS)
    assert dict(costs.measure(module(*lines, before=before)).calls) == {"all-gather": 1}
    unchained = before.replace("chain_id", "other")  # control: three separate gathers
    assert dict(costs.measure(module(*lines, before=unchained)).calls) == {"all-gather": 3}


def test_an_all_reduce_that_keeps_a_part_is_a_reduce_scatter():
    before = (
        "%all-reduce-scatter.1 (q: f32[8,4]) -> f32[2,4] {\n  %q = f32[8,4] parameter(0)\n"
        f"  %r = f32[8,4] all-reduce(%q), {GROUPS}, to_apply=%add\n"
        "  ROOT %s = f32[2,4] dynamic-slice(%r), dynamic_slice_sizes={2,4}\n}\n"
    )
    line = "%f = f32[2,4] fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1"
    assert dict(costs.measure(module(line, before=before)).wire) == {"reduce-scatter": 96}
    line, before = (t.replace("%all-reduce-scatter.1", "%other") for t in (line, before))
    assert dict(costs.measure(module(line, before=before)).wire) == {"all-reduce": 192}


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", 2),
        ("replica_groups=[2,4]<=[8]", 4),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", 2),
        ("replica_groups=mesh['a'=4,'b'=2] {'a'}", 4),
        ("replica_groups=mesh['a'=4,'b'=2] {'a','b'}", 8),
        ("replica_groups=mesh['a'=8] {'a':(1)2}", 2),
        ("replica_groups={}", 8),
    ],
)
def test_group_sizes_in_every_notation(groups, size):
    line = f"%c = f32[8,4] all-reduce(%p), {groups}, use_global_device_ids=true"
    assert dict(costs.measure(module(line)).wire) == {"all-reduce": 2 * (size - 1) / size * 128}


@pytest.mark.parametrize(
    ("left", "right", "result", "attributes", "flops"),
    [
        # A plain product [6, 5] x [5, 3].
        ("bf16[6,5]", "bf16[5,3]", "bf16[6,3]", "dim_labels=bf_io->bf", 2 * 6 * 5 * 3),
        # 4 products of one head each, batched by padding: each window covers only one element.
        (
            "bf16[6,5,1]",
            "bf16[4,7,5]",
            "bf16[6,4,7]",
            "window={size=4 pad=3_3 rhs_reversal=1}, dim_labels=bf0_0oi->b0f",
            4 * 2 * 6 * 5 * 7,
        ),
        # 4 products of one batch element each, batched by dilation.
        (
            "bf16[4,6,5]",
            "bf16[4,7,5]",
            "bf16[4,6,7]",
            "window={size=4 stride=3 lhs_dilate=4}, dim_labels=0bf_0oi->0bf",
            4 * 2 * 6 * 5 * 7,
        ),
        # A contraction over two dimensions; one of them is a window as long as its input.
        (
            "bf16[6,5,8]",
            "bf16[8,5,7]",
            "bf16[6,7,1]",
            "window={size=8}, dim_labels=bf0_0io->bf0",
            2 * 6 * 5 * 8 * 7,
        ),
        # An image: 3x3 over 4x4 with padding 1; along each axis 10 of 12 pairs are not padding.
        (
            "f32[1,4,4,2]",
            "f32[3,3,2,5]",
            "f32[1,4,4,5]",
            "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f",
            2 * 5 * 2 * 10 * 10,
        ),
    ],
)
def test_products_written_as_convolutions(left, right, result, attributes, flops):
    lines = (
        f"%l = {left} parameter(1)",
        f"%r = {right} parameter(2)",
        f"%c = {result} convolution(%l, %r), {attributes}",
    )
    assert costs.measure(module(*lines)).products == flops


def test_pairs_of_a_window_and_its_inputs_are_those_that_meet():
    """Compares the count with an enumeration of all pairs, for random windows."""
    rng = np.random.default_rng(0)
    for size, stride, holes, spread, places, inputs in rng.integers(1, 8, (300, 6)).tolist():
        window = costs.Window(size, stride, int(rng.integers(-3, 9)), holes, spread)
        met = 0
        for place, element in itertools.product(range(places), range(size)):
            at = place * stride + element * spread - window.pad
            met += at % holes == 0 and 0 <= at // holes < inputs
        assert costs._pairs(window, places, inputs) == met


def test_convolutions_of_this_backend_agree_with_its_own_count():
    x, w = jnp.ones((2, 9, 9, 3)), jnp.ones((3, 3, 3, 4))
    f = lambda x, w: jax.lax.conv_general_dilated(  # noqa: E731
        x,
        w,
        (2, 2),
        ((1, 1), (2, 1)),
        lhs_dilation=(1, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    program = jax.jit(f).lower(x, w).compile()
    assert costs.measure(program.as_text()).products == program.cost_analysis()["flops"]


HEADS = "bf16[2,4,16,8]"
MASK = "%m = s8[1,2,2] parameter(1)"


@pytest.mark.parametrize(
    ("name", "results", "products"),
    [
        ("splash_mha_fwd_residuals.1", f"(f32[2,8,8], {HEADS})", 2),
        ("splash_mha_dq_no_residuals", f"(f32[2,8,8], {HEADS})", 3),
        ("splash_mha_dkv_no_residuals.2", f"(f32[2,8,8], {HEADS}, {HEADS})", 4),
        ("splash_mha_dkv_no_residuals", f"(bf16[2,2,4,16,8], {HEADS}, {HEADS})", 5),
        ("mystery", HEADS, 0),
    ],
)
def test_pallas_kernels_by_formula(name, results, products):
    call = f'%{name} = {results} custom-call(%m, %p, %p, %p), custom_call_target="tpu_custom_call"'
    # The attributes of splash attention span three lines, one of which begins with braces.
    call += ', frontend_attributes={kernel_metadata={\n"xprof_metadata":"{}"\n}}, metadata={}'
    found = costs.measure(module(MASK, call, "%t = f32[8,4] tanh(%q)", shape=HEADS))
    assert found.matmul == products * 2 * (2 * 4 * 16) * 16 * 8
    assert found.unknown_kernels == ({"mystery"} if not products else set())


def test_cycles_are_those_of_scheduled_instructions():
    config = 'backend_config={"window_config":{"estimated_cycles":"100"}}'
    trips = 'backend_config={"known_trip_count":{"n":"3"}}'
    before = (
        "%fused (q: f32[8,4]) -> f32[8,4] {\n  %q = f32[8,4] parameter(0)\n"
        f"  ROOT %t = f32[8,4] fusion(%q), kind=kLoop, calls=%leaf, {config}\n}}\n\n"
        "%leaf (q: f32[8,4]) -> f32[8,4] {\n  ROOT %q = f32[8,4] parameter(0)\n}\n\n"
        "%body (q: f32[8,4]) -> f32[8,4] {\n  %q = f32[8,4] parameter(0)\n"
        f"  ROOT %t = f32[8,4] fusion(%q), kind=kLoop, calls=%fused, {config}\n}}\n"
    )
    line = f"%w = f32[8,4] while(%p), condition=%leaf, body=%body, {trips}"
    assert costs.measure(module(line, before=before)).cycles == 300


def test_the_larger_branch_of_a_conditional_counts():
    before = "\n".join(
        f"%{name} (q: f32[8,4]) -> f32[8,4] {{\n  %q = f32[8,4] parameter(0)\n"
        + "".join(f"  %r{i} = f32[8,4] all-reduce(%q), {GROUPS}\n" for i in range(calls))
        + "}\n"
        for name, calls in (("small", 1), ("large", 3))
    )
    line = "%c = f32[8,4] conditional(%i, %p, %p), branch_computations={%small, %large}"
    assert dict(costs.measure(module(line, before=before)).calls) == {"all-reduce": 3}


COUNTED = """%below (t: (s32[], f32[8,4])) -> pred[] {
  %t = (s32[], f32[8,4]) parameter(0)
  %limit = s32[] constant(LIMIT)
  %i = s32[] get-tuple-element(%t), index=0
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}

%plus (a: s32[], b: s32[]) -> s32[] {
  %a = s32[] parameter(0)
  %b = s32[] parameter(1)
  ROOT %sum = s32[] add(%a, %b)
}

%body (t: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %t = (s32[], f32[8,4]) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %two = s32[] constant(2)
  %next = s32[] fusion(%i, %two), kind=kLoop, calls=%plus
  %x = f32[8,4] get-tuple-element(%t), index=1
  %y = f32[8,4] all-reduce(%x), replica_groups={}
  ROOT %out = (s32[], f32[8,4]) tuple(%next, %y)
}
"""


@pytest.mark.parametrize(
    ("start", "limit", "runs"),
    [("constant(0)", "constant(6)", 3), ("constant(1)", "constant(6)", 3),
     ("constant(9)", "constant(6)", 0), ("add(%k, %k)", "constant(6)", 1),
     ("constant(0)", "parameter(1)", 1)],
)  # fmt: skip
def test_loops_are_counted_where_the_compiler_does_not_say(start, limit, runs):
    """A loop from a constant to a constant, in steps of two, as on TPUs.

    Other loops count once and are listed in `loops`.
    """
    lines = (f"%k = s32[] parameter(1)\n  %s = s32[] {start}", "%z = s32[] copy(%s)")
    lines += ("%in = (s32[], f32[8,4]) tuple(%z, %p)",)
    lines += ("%w = (s32[], f32[8,4]) while(%in), condition=%below, body=%body",)
    before = COUNTED.replace("constant(LIMIT)", limit)
    found = costs.measure(module(*lines, before=before))
    assert found.calls["all-reduce"] == runs
    assert found.loops == (["w"] if "%k" in start or "param" in limit else [])


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no HLO entry"):
        hlo.parse("HloModule nothing\n")
