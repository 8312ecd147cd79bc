"""Engines that compose instead of sending: a prompt in, the words of one mail out.

base     what the worker asks of a composer        chat     an OpenAI-compatible chat API, without I/O
client   the one that does the talking             openai   that API as a kind of engine
written  words, judged                             mock     answers by a seed: for tests and demonstrations
"""

from delivery.engines.composers.base import Composed, Composer, Prompt

__all__ = ["Composed", "Composer", "Prompt"]
