"""Preference data from a video, a question and a judgement: sample, judge, pairs, report, rank, rounds.

Needs neither the host nor torch, except where answers are generated: that is behind two small protocols,
:class:`~hound_plugin.reward.candidates.Generator` and :class:`~hound_plugin.reward.rank.LogProbs`.
"""
