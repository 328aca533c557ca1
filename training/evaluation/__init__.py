"""Networks evaluated on labelled photographs: errors, intervals, tables and pictures."""
