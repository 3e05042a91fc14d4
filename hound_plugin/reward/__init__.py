"""Preference data from videos, questions and judgements: sample, judge, pairs, report, rank, rounds.

Needs neither the host nor torch; models are behind two small interfaces,
:class:`~hound_plugin.reward.candidates.Generator` and :class:`~hound_plugin.reward.rank.LogProbs`.
"""
