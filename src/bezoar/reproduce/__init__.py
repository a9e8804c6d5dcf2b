"""The tables and figures of "Pick your Poison": played, drawn in the paper's layout, and judged beside its numbers."""
