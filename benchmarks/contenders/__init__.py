"""Each contender does the work of a row of the table, turn by turn."""
