"""Memory that is given out again only when nobody holds it."""

import torch

from olmoe_ft.model.experts.gradient_memory import MAPPED, ReusedMemory

LARGE = torch.empty(MAPPED // 4 + 1)


def test_a_block_is_taken_again_when_the_last_view_of_it_is_gone():
    memory = ReusedMemory()
    first = memory.empty_like(LARGE)
    address, view = first.data_ptr(), first.view(-1)[:3]
    assert first.shape == LARGE.shape and first.dtype == LARGE.dtype and first.is_contiguous()
    del first
    second = memory.empty_like(LARGE)
    assert second.data_ptr() != address  # a view still stands on the first
    del view
    third = memory.empty_like(LARGE)
    assert third.data_ptr() == address
    assert len({tensor.data_ptr() for tensor in (second, third, memory.empty_like(LARGE))}) == 3


def test_a_gradient_that_somebody_keeps_is_never_written_over():
    """As in training: gradients are stolen by the parameter, dropped by `zero_grad`, and sometimes kept by a caller."""
    memory, weight = ReusedMemory(), torch.nn.Parameter(LARGE.clone())

    class Fill(torch.autograd.Function):
        @staticmethod
        def forward(ctx, weight, value):
            ctx.value = value
            return weight.new_zeros(())

        @staticmethod
        def backward(ctx, gradient):
            return memory.empty_like(weight).fill_(ctx.value), None

    addresses, kept = [], None
    for value in range(1, 7):
        Fill.apply(weight, float(value)).backward()
        assert (weight.grad == value).all()
        addresses.append(weight.grad.data_ptr())
        if value == 3:
            kept = weight.grad
        weight.grad = None
    assert (kept == 3).all()
    assert addresses[0] == addresses[1] == addresses[2] and addresses[2] not in addresses[3:]
    assert len(set(addresses)) == 2


def test_memory_is_given_back():
    memory = ReusedMemory()
    held = memory.empty_like(LARGE).fill_(7)
    memory.release()
    assert not memory.blocks and (held == 7).all()
    assert memory.empty_like(LARGE).data_ptr() != held.data_ptr()


def test_memory_is_of_the_tensors_device():
    """The meta device stands for a GPU."""
    memory = ReusedMemory()
    assert memory.empty_like(torch.empty(MAPPED, device="meta")).device.type == "meta"
    assert not memory.blocks


def test_small_and_fake_tensors_are_plain():
    from torch._subclasses.fake_tensor import FakeTensorMode

    memory = ReusedMemory()
    assert memory.empty_like(torch.empty(10)).shape == (10,)
    with FakeTensorMode():
        assert memory.empty_like(torch.empty(MAPPED)).shape == (MAPPED,)
    assert not memory.blocks
