"""What `make bench` computes rather than measures, its batches, and its measure of memory."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from batches import rows
from equal_attention import attend_by_document
from generation import NEW, generation, prompts, take_turns
from measure import peak_bytes
from rich.progress import Progress
from sides import EQUAL, OURS, STOCK, Case, Side, both_sides, names_of, operations
from speed import allowed, measure
from speed_report import DOCUMENT, END, RESULTS, START, Line, Results, results_table

ONE_LAYER = {
    "hidden_size": 4,
    "intermediate_size": 2,
    "num_experts": 3,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 5,
}

ON_CUDA = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
)


def test_operations_of_a_step_by_hand():
    """One token, one layer, H = 4, I = 2, 3 experts of which 2 work, vocabulary 5, rank 1.

    Weights: attention 4 x 16 = 64, router 12, experts 2 x 3 x 8 = 48, head 20: 144. Trained 144 x 6 = 864, frozen
    144 x 4 = 576. Factors: attention 4 x (4 + 4) = 32, experts 2 x ((4 + 4) + (2 + 4)) = 28: 60 x 6 = 360. DPO's
    reference passes forward once more: 144 x 2 = 288.
    """

    def case(stage, lora):
        return Case(stage, lora, "tiny", 512, 1, rank=1, options=ONE_LAYER)

    assert operations(case("sft", False), 1) == 864
    assert operations(case("sft", True), 1) == 576 + 360
    assert operations(case("dpo", False), 3) == 3 * (864 + 288)
    assert operations(case("dpo", True), 3) == 3 * (576 + 360 + 288)


@pytest.mark.parametrize("length", [512, 4096])
def test_rows_are_no_longer_than_asked_for_and_enough(length):
    conversations = rows("sft", length, 10, 97)
    sizes = [len(ids) for ids in conversations["input_ids"]]
    assert max(sizes) <= length and 10 * length <= sum(sizes) < 12 * length
    for ids, labels in zip(conversations["input_ids"], conversations["labels"], strict=True):
        prompt = labels.count(-100)
        assert prompt == round(len(ids) / 3) and labels[prompt:] == ids[prompt:]
    pairs = rows("dpo", length, 10, 97)
    assert len(pairs) == 10
    for prompt, chosen, rejected in zip(pairs["prompt_ids"], pairs["chosen_ids"], pairs["rejected_ids"], strict=True):
        assert len(prompt) + max(len(chosen), len(rejected)) <= length and min(len(chosen), len(rejected)) >= 4


@pytest.mark.parametrize("stage", ["sft", "dpo"])
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("device", "tolerance"), [("cpu", 1e-4), pytest.param("cuda", 2e-2, marks=ON_CUDA)])
def test_both_sides_take_the_same_steps(stage, lora, checkpointing, device, tolerance):
    """Loss and gradient norm of two steps, on one copy of the weights; ours sees a shared prompt once."""
    case = Case(stage, lora, "tiny", 64, 2, checkpointing=checkpointing, options={"num_hidden_layers": 1})
    sides = both_sides(case, 2, device)
    theirs, own = (sides[name].trainer.model for name in (STOCK, OURS))
    assert theirs.get_input_embeddings().weight.data_ptr() == own.get_input_embeddings().weight.data_ptr()
    assert theirs.is_gradient_checkpointing == own.is_gradient_checkpointing == checkpointing
    for _ in range(2):
        found = {}
        for name, side in sides.items():
            loss = side.next_step().item()
            gradients = [weight.grad.norm() for weight in side.trainer.model.parameters() if weight.grad is not None]
            found[name] = (loss, torch.stack(gradients).norm().item())
            side.forget()
        assert all(theirs == pytest.approx(found[OURS], rel=tolerance) for theirs in found.values())
    assert sides[OURS].tokens == sides[STOCK].tokens if stage == "sft" else sides[OURS].tokens < sides[STOCK].tokens


def test_stock_with_our_attention_takes_the_same_steps(monkeypatch):
    """The benchmark asks for it on a GPU alone; here it attends document by document. With adapters and without."""
    monkeypatch.setattr("sides.names_of", lambda case, device: (STOCK, EQUAL, OURS))
    called = []
    monkeypatch.setattr(
        "equal_attention.attend_by_document", lambda *a, **k: called.append(a) or attend_by_document(*a, **k)
    )
    for lora in (False, True):
        sides = both_sides(Case("sft", lora, "tiny", 64, 2, options={"num_hidden_layers": 1}), 1, "cpu")
        masked = sides[STOCK].trainer.model.config._attn_implementation
        losses = {name: side.next_step().item() for name, side in sides.items()}
        assert masked == "sdpa" and losses[EQUAL] == pytest.approx(losses[STOCK], rel=1e-5)
        assert losses[OURS] == pytest.approx(losses[STOCK], rel=1e-5)
        assert len(called) == 1 + lora  # of one layer and one side


def test_both_sides_generate_the_same_tokens(monkeypatch):
    """Five prompts of 16 to 128 tokens, and one between; a row of the table for each batch."""
    assert [len(prompt) for prompt in prompts(5, 512)] == [16, 44, 72, 100, 128] and [len(*prompts(1, 512))] == [72]
    monkeypatch.setattr("generation.BATCHES", (1, 5))
    monkeypatch.setattr("generation.NEW", 8)
    found = generation(["tiny"], "cpu", 1)
    assert [(row["generation"], row["same tokens"]) for row in found] == [
        ("tiny: 1 row", "1 of 1"),
        ("tiny: 5 rows", "5 of 5"),
    ]


def test_generation_stops_where_tokens_differ(monkeypatch):
    """Stock takes 4 seconds, then 2, then 2; ours 1 each: the first round warms up."""
    monkeypatch.setattr("generation.seconds", lambda work, device: work() or next(clock))
    clock = iter([1, 4, 2, 1, 1, 2])
    cells = take_turns({STOCK: lambda: [[5] * NEW], OURS: lambda: [[5] * NEW]}, "cpu", 2)
    assert (cells["speed"], cells["our tokens/s"], cells["same tokens"]) == ("2.00x", "64", "1 of 1")
    clock = iter([1] * 6)
    with pytest.raises(AssertionError, match="1 of 1 rows"):
        take_turns({STOCK: lambda: [[5]], OURS: lambda: [[6]]}, "cpu", 1)


def test_the_sides_of_a_case(monkeypatch):
    sft, dpo = (Case(stage, False, "tiny", 64, 1) for stage in ("sft", "dpo"))
    monkeypatch.setattr("sides.is_flash_attn_2_available", lambda: False)
    assert names_of(sft, "cpu") == names_of(dpo, "cuda") == (STOCK, OURS)
    assert names_of(sft, "cuda") == (STOCK, EQUAL, OURS)
    monkeypatch.setattr("sides.is_flash_attn_2_available", lambda: True)
    assert names_of(sft, "cuda") == (STOCK, OURS)


def test_a_sides_network_runs_under_the_autocast_of_training():
    """`training_step` alone does not put it there: accelerate does, for `train()`."""

    class Network(torch.nn.Linear):
        def forward(self, x):
            return torch.is_autocast_enabled("cpu")

    prepared = []

    def prepare_model(model: Network) -> Network:
        model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
        prepared.append(model)
        return model

    trainer = SimpleNamespace(
        model=Network(1, 1),
        args=SimpleNamespace(gradient_checkpointing=False),
        accelerator=SimpleNamespace(prepare_model=prepare_model),
        get_train_dataloader=list,
    )
    assert not trainer.model(None)
    side = Side(trainer)
    assert side.trainer.model(None) and prepared == [side.trainer.model]


class OnASmallGPU:
    """In the place of a side: a step of 4 seconds (stock) or 2, which may take more memory than there is."""

    tokens = 100

    def __init__(self, name: str, fits: bool) -> None:
        self.name, self.fits = name, fits

    def next_step(self):
        if not self.fits:
            raise torch.OutOfMemoryError(self.name)
        return torch.tensor(1.0)

    def forget(self) -> None:
        pass

    def peak(self, device: str) -> int:
        self.next_step()
        return 2**21 if self.name == STOCK else 2**20


def test_a_side_that_does_not_fit_is_tried_with_checkpointing(monkeypatch):
    """A line for what fits without, one for both sides with; None fits with checkpointing alone, False never."""

    def measured(**fits) -> list[list[str]]:
        def both(case, steps, device):
            return {name: OnASmallGPU(name, case.checkpointing if fit is None else fit) for name, fit in fits.items()}

        monkeypatch.setattr("speed.both_sides", both)
        monkeypatch.setattr("speed.names_of", lambda case, device: tuple(fits))
        with Progress(disable=True) as progress:
            lines = measure(Case("sft", False, "mid", 512, 4), 2, "cuda", 1e12, progress)
        assert all(line.seconds.keys() == line.peak.keys() for line in lines)
        return [line.cells(tuple(fits))[2 : 4 + 2 * len(fits) - 2] for line in lines]

    def seconds(work, device):
        work()
        (name,) = work.args
        return 4.0 if name == STOCK else 2.0

    monkeypatch.setattr("speed.seconds", seconds)
    plain, checkpointing = "4 rows x 512", "4 rows x 512, checkpointing"
    never, fast = ["out of memory", "2.000", ""], ["4.000", "2.000", "2.00x"]
    assert measured(**{STOCK: True, OURS: True}) == [[plain, *fast]]
    assert measured(**{STOCK: None, OURS: True}) == [[plain, *never], [checkpointing, *fast]]
    assert measured(**{STOCK: False, OURS: True}) == [[plain, *never], [checkpointing, *never]]
    nothing = ["out of memory", "out of memory", ""]
    assert measured(**{STOCK: None, OURS: None}) == [[plain, *nothing], [checkpointing, *fast]]
    # stock with our attention fits without its mask: 2 s as ours has
    equal = measured(**{STOCK: None, EQUAL: True, OURS: True})
    assert equal[0] == [plain, "out of memory", "2.000", "2.000", "", "1.00x"]
    assert equal[1] == [checkpointing, "4.000", "2.000", "2.000", "2.00x", "1.00x"]


def test_how_far_losses_may_differ_by_hand():
    """4,096 tokens of ln 5120 = 8.54 nats are 34,983: between 2^15 and 2^16, where fp32's last bit is 2^-8."""
    assert allowed(Case("sft", False, "mid", 4096, 1), "cpu") == 1e-4
    assert allowed(Case("dpo", False, "mid", 4096, 2), "cpu") == pytest.approx(4 * 0.1 / 2**8)
    assert allowed(Case("dpo", False, "tiny", 64, 2), "cpu") == 1e-4
    assert allowed(Case("dpo", False, "1b-7b", 4096, 4), "cuda") == 2e-2


def test_losses_that_differ_stop_the_benchmark(monkeypatch):
    sides = {name: OnASmallGPU(name, True) for name in (STOCK, OURS)}
    sides[OURS].next_step = lambda: torch.tensor(1.001)
    monkeypatch.setattr("speed.both_sides", lambda *arguments: sides)
    with Progress(disable=True) as progress, pytest.raises(AssertionError, match="the losses differ by 1.0e-03"):
        measure(Case("sft", False, "mid", 512, 1), 2, "cpu", 1e12, progress)


class Hungry(torch.nn.Module):
    """Holds 3 MiB at once, after 2 MiB that are gone by then; the weight's own 4 bytes are not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self):
        torch.ones(2 * 2**18)
        held = [torch.ones(2**18) for _ in range(3)]
        return self.weight * held[0][0]


def test_the_peak_is_what_is_held_at_once():
    model = Hungry()
    assert abs(peak_bytes(lambda: model().backward(), "cpu") - 3 * 2**20) < 1024


def test_a_case_measured_again_takes_the_place_of_its_old_lines(tmp_path, monkeypatch):
    """At first with two lines, of which stock fits the second alone."""
    monkeypatch.setattr("speed_report.RESULTS", tmp_path)
    results = Results("a device", "cpu", {"torch": "2"}, 1e11)
    case = Case("sft", False, "mid", 512, 1)
    times, peaks = {STOCK: 2.0, OURS: 1.0}, {STOCK: 2**21, OURS: 2**20}
    both = STOCK, OURS
    checkpointing = Line.of(replace(case, checkpointing=True), times, peaks, 0.5, 1e-7, both)
    results.put([checkpointing, Line.of(case, {OURS: 0.8}, {OURS: 2**22}, 0.5, 0.0, both)])
    assert [line.checkpointing for line in results.lines] == [False, True]
    results.put([Line.of(case, times, peaks, 0.5, 1e-7, both)])
    results.put([Line.of(Case("sft", False, "tiny", 512, 1), times, peaks, 0.5, 1e-7, both)])
    results.write()
    found = Results.read(tmp_path / "a-device.json")
    assert found == results and [line.size for line in found.lines] == ["tiny", "mid"]
    assert found.lines[1].cells() == [
        "SFT full", "mid", "1 row x 512", "2.000", "1.000", "2.00x", "0.500", "25%", "50%", "2", "1", "0.50", "1e-07",
    ]  # fmt: skip


def test_a_table_shows_both_ratios_where_stock_ran_twice():
    """A line of DPO, where it ran once, has nothing there; files from before there was such a side are read."""
    both, three = (STOCK, OURS), (STOCK, EQUAL, OURS)
    sft = Line.of(
        Case("sft", False, "1b-7b", 4096, 4),
        {STOCK: 0.9, EQUAL: 0.45, OURS: 0.3}, {STOCK: 4 * 2**20, EQUAL: 2 * 2**20, OURS: 2**20}, 0.15, 1e-3, three,
    )  # fmt: skip
    dpo = Line.of(
        Case("dpo", False, "1b-7b", 4096, 4), {STOCK: 0.9, OURS: 0.3}, {STOCK: 2**20, OURS: 2**20}, 0.15, 0, both
    )
    table = results_table([Results("a card", "cuda", {}, 1e15, [sft, dpo])]).split("\n")
    cells = [[cell.strip() for cell in row.split("|")[4:-1]] for row in table if row.startswith("| ")]
    assert cells[0] == [
        "stock s", "equal s", "ours s", "speed", "speed, equal", "floor s", "stock MFU", "equal MFU", "our MFU",
        "stock MiB", "equal MiB", "our MiB", "of stock's", "of equal's", "losses differ by",
    ]  # fmt: skip
    assert cells[2] == [
        "0.900", "0.450", "0.300", "3.00x", "1.50x", "0.150", "17%", "33%", "50%",
        "4", "2", "1", "0.25", "0.50", "1e-03",
    ]  # fmt: skip
    assert cells[3] == ["0.900", "", "0.300", "3.00x", "", "0.150", "17%", "", "50%", "1", "", "1", "1.00", "", "0e+00"]
    assert any(row.startswith("*equal*: stock with this project's attention") for row in table)
    stored = {name: value for name, value in asdict(dpo).items() if name != "sides"}
    assert Line(**stored) == dpo


def test_the_documents_table_is_that_of_the_results():
    """`python benchmarks/speed.py --render` writes it."""
    files = sorted(RESULTS.glob("*.json"))
    assert files and all(json.loads(file.read_text())["lines"] for file in files)
    written = DOCUMENT.read_text().split(START)[1].split(END)[0]
    assert written == results_table([Results.read(file) for file in files])
