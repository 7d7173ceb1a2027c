"""Fine-tuning for OLMoE: SFT, then DPO, with the router's losses in the objective."""
