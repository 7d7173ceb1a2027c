"""Many runs of one recipe: its values laid out, planned, run one after the other, watched and compared.

axes    key=v1,v2 and key=lo..hi:log:5 -> axes, and the values of a grid or of a random search
points  values -> points: their names, recipes, and which of them are the same
plans   points -> steps, hours, memory and disk of each; which do not fit
run     the points as runs in runs/<sweep>/<point>/, one process each (`child`), watched (`watch`)
search  points that optuna chooses from the results so far
state   `runs/<sweep>/sweep.json`, by which the same command goes on
result  the table and the page at the end
"""
