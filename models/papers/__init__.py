"""The five papers, reproduced: each is data (`jhu`, `ncsu`, `lab2`, `ecse4850`, `kth`), and the rest serves all five.

In reading order: `tasks` (what a run is told), `networks`, `run` (one run), `claims` (what a paper says, and verdicts),
`engine` (many runs, on processes or a cluster), `draw`, the papers, `report`, `commands`.
"""

NAMES = ("jhu", "ncsu", "lab2", "ecse4850", "kth")
