"""How the experts of a layer really run: from a token's row to the matrix products, and back.

Shapes: T tokens, K experts per token, R = T·K rows sorted by expert, H hidden, I intermediate, E experts.

    OlmoeSparseMoeBlock.forward    ../decoder.py   the router chooses: tokens (T, H), experts (T, K), weights (T, K)
      ParamWrapper.forward         of PEFT         only with adapters: hands their factors over (peft_bridge.py)
        OlmoeExperts.forward       layer.py        transformers' decorator calls the chosen back end, by default:
          grouped_experts          autograd.py     Routes.of (dispatch.py) sorts the (token, expert) pairs
            Mixture                autograd.py     rows (R, H) times gate_up (E, 2I, H) -> (R, 2I); the whole way back
            Output                 autograd.py     activation.py -> (R, I), times down (E, H, I) -> (R, H) -> (T, H)
              Projection           projection.py   a stack of weights and its adapters, and their gradients
                AllExperts         matmul.py       every product by one kernel: torch's, or ../kernels/grouped.py
                OneExpert          matmul.py       or an expert at a time, on threads of a CPU
            traced_experts         traced.py       in the place of these, while torch compiles or transforms

`gradient_memory.py` keeps the memory of large gradients on a CPU from step to step.
"""
