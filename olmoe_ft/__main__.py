"""`python -m olmoe_ft …`, which is what `accelerate launch -m olmoe_ft …` starts in every process."""

from olmoe_ft.cli import main

if __name__ == "__main__":
    main()
