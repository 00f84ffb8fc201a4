"""From curves to what a reader sees: AULC, tables, figures, the page."""
