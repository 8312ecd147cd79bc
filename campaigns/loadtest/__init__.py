"""A bounded storm of triggers against one's own server, and what came of it.

target   whose server may be stormed       plan      what is asked for, how often, how many at once
caller   one request, and what was said    storm     many at once, never more than planned
receiver who is called back, and checks    measures  percentiles and slices of time, exact and pure
loading  all of these put together         report    for people and programs; chart as a picture
"""
