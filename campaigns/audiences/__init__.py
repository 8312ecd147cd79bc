"""Where recipients come from, one source per file.

A source turns a file, a query or a stored list into a stream of `rows.Row` and `rows.BadRow`; `rows.Source` is the
interface. Sources know no models and write nothing; who they are wired to, who deduplicates and who stores is
decided by the caller.
"""
