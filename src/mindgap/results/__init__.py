"""From curves to what a reader sees: AULC, tables, figures, the page.

Reading order. Each step takes tables and gives tables; nothing is written before all of it is computed.

1. `reading` reads a file; `curves` the curves of a `Selection`, `provenance`, `searches`, `flow`, `diagnosis`
   and `balance` (extra evaluators) what lies beside them. Each refuses what would make a number wrong.
2. `aulc` makes of curves one area a run and the tidy table. `gate` says where methods may be ranked,
   `statistics` which differ, `effects`, `speed_up` and `power` what a choice costs or gives;
   `preregistered` tests methods of our own.
3. `paper` has the published numbers (with `errata`); `comparison`, `rank_comparison` and `claims` hold ours
   against them; `scales` says whether runs have the settings of their scale; `sensitivity` compares variants.
4. `tables` declares a table and its files, `paper_tables` the paper's; `figures` and its two neighbours draw.
5. `site.content` gathers all of this, `site.page` draws the pages from their templates, `site.build` writes
   every file. `names` has how each thing is called.

Beside this way: `expectations` checks tables by their suites, `permutation` asks trained models what their
reliabilities decide, `metrics` is what DVC shows.
"""
