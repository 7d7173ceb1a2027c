"""`python -m olmoe_ft …`, which is what `accelerate launch -m olmoe_ft …` starts in every process."""

from olmoe_ft.ending import program

if __name__ == "__main__":
    program()
