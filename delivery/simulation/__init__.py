"""The worker in virtual time: the very pump of `delivery.worker`, on a queue in memory, over scripted vendors.

loop     asyncio on a virtual clock      queue    the queue in memory
vendors  what a scripted vendor is       run      one simulation, and what came of it
"""
