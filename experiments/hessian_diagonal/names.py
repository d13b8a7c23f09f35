"""What the experiment and those who read its rows call the same."""

PACKAGES = ("curvlinops", "BackPACK")  # with which the names of their estimates begin
