"""Who is answered next."""

from __future__ import annotations

import asyncio

from hound_plugin.host.serve.turns import IN_A_ROW, Turns


async def _order(arrivals: str, places: int = 1) -> str:
    """Who is served in which order, of some that wait (m: with media, t: text) while all places are taken."""
    turns, served = Turns(asyncio.Semaphore(places)), ""
    for _ in range(places):
        await turns.acquire(has_media=True)

    async def ask(kind: str) -> None:
        nonlocal served
        await turns.acquire(has_media=kind == "m")
        served += kind
        await asyncio.sleep(0)
        turns.release()

    waiting = [asyncio.create_task(ask(kind)) for kind in arrivals]
    await asyncio.sleep(0)
    turns.release()
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    return served


def test_text_goes_first_and_media_are_not_forgotten() -> None:
    assert asyncio.run(_order("mmt")) == "tmm"
    assert asyncio.run(_order("mm" + "t" * 9)) == "t" * IN_A_ROW + "m" + "t" * IN_A_ROW + "m" + "t"
    assert asyncio.run(_order("mmm")) == "mmm"
    assert asyncio.run(_order("tttttttm", places=2)).index("m") <= IN_A_ROW + 1


def test_who_leaves_the_line_takes_no_place() -> None:
    async def leave(after_the_turn_came: bool) -> None:
        turns = Turns(asyncio.Semaphore(1))
        await turns.acquire(has_media=False)
        waiting = [asyncio.create_task(turns.acquire(has_media=kind)) for kind in (True, False, True)]
        await asyncio.sleep(0)
        if after_the_turn_came:
            turns.release()
            while not any(turn.done() for turn in [turns._giving] if turn) and turns._waiting[False]:
                await asyncio.sleep(0)
        for task in waiting[:2]:
            task.cancel()
        await asyncio.sleep(0)
        if not after_the_turn_came:
            turns.release()
        await asyncio.wait_for(waiting[2], 5)
        turns.release()
        await asyncio.wait_for(turns.acquire(has_media=False), 5)

    asyncio.run(leave(after_the_turn_came=False))
    asyncio.run(leave(after_the_turn_came=True))
