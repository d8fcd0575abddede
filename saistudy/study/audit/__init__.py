"""Does what is committed say what was computed: notebooks, records, tables, none of them run again."""
