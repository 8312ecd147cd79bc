"""The functions that a query for an audience may call.

An allow-list, because no list of dangerous ones is ever complete: functions that sleep, read files, run SQL given as
text (`query_to_xml`, `ts_stat`, `dblink`), change settings or load code are plain calls to a parser. Left out too is
what would only serve to fill memory (`repeat`, `zeroblob`). The same list serves the lint and SQLite's authorizer.
"""

_TEXT = """
    ascii bit_length btrim char_length character_length chr char concat concat_ws format glob hex initcap instr
    left length like likely unlikely lower lpad ltrim md5 normalize octet_length overlay position printf
    quote quote_ident quote_literal quote_nullable regexp regexp_count regexp_instr regexp_like
    regexp_match regexp_matches regexp_replace
    regexp_split_to_array regexp_split_to_table regexp_substr replace reverse right rpad rtrim sha224 sha256 sha384
    sha512 soundex split_part starts_with string_to_array string_to_table strpos substr substring to_char to_hex
    translate trim unaccent unicode unistr upper encode decode convert_from convert_to
"""
_NUMBERS = """
    abs acos acosh asin asinh atan atan2 atanh cbrt ceil ceiling cos cosh cot degrees div exp factorial floor gcd lcm ln
    log log10 log2 min_scale mod pi pow power radians random round scale sign sin sinh sqrt tan tanh
    to_number trim_scale trunc width_bucket generate_series
"""
_TIME = """
    age clock_timestamp current_date current_time current_timestamp date date_bin date_part date_trunc datetime extract
    isfinite julianday justify_days justify_hours justify_interval localtime localtimestamp make_date make_interval
    make_time make_timestamp make_timestamptz now statement_timestamp strftime time timediff timeofday timestamp
    timezone to_date to_timestamp transaction_timestamp unixepoch
"""
_CHOICE = """
    cast coalesce greatest iif ifnull least max min nullif num_nonnulls num_nulls typeof pg_typeof row_number
"""
_AGGREGATES = """
    array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp every group_concat grouping
    json_agg json_object_agg jsonb_agg jsonb_object_agg mode percentile_cont percentile_disc regr_avgx regr_avgy
    regr_count regr_intercept regr_r2 regr_slope stddev stddev_pop stddev_samp string_agg sum total var_pop var_samp
    variance
"""
_WINDOW = """
    cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank
"""
_JSON = """
    -> ->> json json_array json_array_elements json_array_elements_text json_array_length json_build_array
    json_build_object json_each json_each_text json_error_position json_extract json_extract_path
    json_extract_path_text json_group_array json_group_object json_insert json_object json_object_keys json_patch
    json_query json_exists json_value json_quote json_remove json_replace json_set json_strip_nulls json_to_record
    json_to_recordset json_tree json_type json_typeof json_valid jsonb jsonb_array_elements jsonb_array_elements_text
    jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text jsonb_exists jsonb_extract_path
    jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_keys jsonb_path_exists jsonb_path_match
    jsonb_path_query jsonb_path_query_array jsonb_path_query_first jsonb_pretty jsonb_set jsonb_set_lax
    jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof row_to_json to_json to_jsonb
"""
_ARRAYS_AND_SEARCH = """
    array_append array_cat array_dims array_length array_lower array_ndims array_position array_positions array_prepend
    array_remove array_replace array_to_json array_to_string array_upper cardinality trim_array unnest
    phraseto_tsquery plainto_tsquery to_tsquery to_tsvector ts_headline ts_rank ts_rank_cd websearch_to_tsquery
    similarity word_similarity levenshtein
    host hostmask masklen netmask network family isempty lower_inc upper_inc lower_inf upper_inf
    gen_random_uuid
"""

FUNCTIONS = frozenset(
    " ".join((_TEXT, _NUMBERS, _TIME, _CHOICE, _AGGREGATES, _WINDOW, _JSON, _ARRAYS_AND_SEARCH)).split()
)
