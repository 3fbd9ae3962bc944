"""The side-by-side comparison: ours and the peers in turn, with goals, plots and the tables of docs/performance.md.

python -m benches.compare [ROW ...] [--json FILE] [--plots DIR] [--report PAGE ...]
"""
