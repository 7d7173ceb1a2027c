"""Headers that lie are refused with a sentence; those of whole files say where each tensor is."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from olmoe_ft.checkpoints.base_model import fingerprint
from olmoe_ft.checkpoints.folders import check_weights
from olmoe_ft.checkpoints.safetensors_header import read_header
from olmoe_ft.recipe import RecipeError


def written(header: object, content: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + content


def tensor(start: int, end: int, shape: tuple[int, ...] = (1,), dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


LIES = {
    "nothing": b"",
    "too short": b"\x00\x01",
    "longer than the file": written({"a": tensor(0, 4)}, bytes(4), length=1 << 20),
    "longer than any disk": written({"a": tensor(0, 4)}, bytes(4), length=(1 << 63) + 5),
    "no JSON": written(b"{]", bytes(4)),
    "no object": written([1]),
    "not UTF-8": written(b'{"\xff": 1}'),
    "behind the end": written({"a": tensor(0, 400, (100,))}, bytes(4)),
    "backwards": written({"a": tensor(4, 0)}, bytes(4)),
    "negative": written({"a": tensor(-4, 0)}, bytes(4)),
    "overlapping": written({"a": tensor(0, 4), "b": tensor(2, 6)}, bytes(6)),
    "a hole": written({"a": tensor(0, 4), "b": tensor(8, 12)}, bytes(12)),
    "another shape": written({"a": tensor(0, 4, (1 << 40, 1 << 40))}, bytes(4)),
    "another type": written({"a": tensor(0, 4, dtype="PYOBJ")}, bytes(4)),
    "no offsets": written({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
    "nested": written(b'{"a":' * 99_999 + b"1" + b"}" * 99_999),
    "cut off": written({"a": tensor(0, 4)}, bytes(3)),
    "more than it says": written({"a": tensor(0, 4)}, bytes(5)),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_a_sentence(name, tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(LIES[name])
    (tmp_path / "config.json").write_text("{}")
    for act in (lambda: read_header(file), lambda: check_weights(str(tmp_path)), lambda: fingerprint(str(tmp_path))):
        with pytest.raises(RecipeError, match=r"model\.safetensors: not a complete safetensors file \(.+\); download"):
            act()


def test_a_header_of_gigabytes_is_not_read(tmp_path):
    file = tmp_path / "model.safetensors"
    with file.open("wb") as stream:
        stream.write((5 << 30).to_bytes(8, "little") + b'{"a":')
        stream.truncate(6 << 30)  # a sparse file: no disk is used
    with pytest.raises(RecipeError, match="its header is too long"):
        read_header(file)


def test_each_tensor_is_where_the_header_says(tmp_path):
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([7], dtype=np.int64)}
    save_file(tensors, file := tmp_path / "model.safetensors", metadata={"format": "np"})
    found = read_header(file)
    assert found.keys() == tensors.keys()
    for name, stored in found.items():
        content = file.read_bytes()[stored.start : stored.start + stored.size]
        assert content == tensors[name].tobytes() and tuple(stored.shape) == tensors[name].shape
