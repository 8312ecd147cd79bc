"""Where recipients come from, one source per file.

A source turns a file, a query or a stored list into a stream of `rows.Row` and `rows.BadRow`; `rows.Source` is the
interface. Sources know no models and write nothing; who they are wired to, who deduplicates and who stores is
decided by the caller.

A list over HTTP takes several files, each of which knows only its part:
http_settings  what an operator enters      http_fetch      one page, repeated where that helps
http_url       links that lead nowhere else http_paging     which page is next
http_json      all of it: the source        json_*          paths, types, fields, what is new
`stored` joins sources to the audiences that are kept in the database, `bookmarks` keeps how far they were read,
`sample` shows the first rows of one.
"""
