"""No more is taken on than the limits allow, and everything that is given back can be taken again."""

from __future__ import annotations

import asyncio

import pytest
from starlette.exceptions import HTTPException

from unit.translation.server.admission import Admission, Limits


def test_more_requests_than_the_limit_are_told_to_wait() -> None:
    admission = Admission(Limits(requests=2))
    with admission.request(), admission.request():
        with pytest.raises(HTTPException) as refused, admission.request():
            pass
        assert refused.value.status_code == 429
        assert refused.value.headers == {"Retry-After": "1"}
    with pytest.raises(RuntimeError), admission.request():
        raise RuntimeError
    assert admission.requests == 0
    with admission.request(), admission.request():
        assert admission.requests == 2


def test_an_image_over_the_limit_is_refused_at_once() -> None:
    async def hold() -> None:
        async with Admission(Limits(pixels=100)).pixels(101):
            pass

    with pytest.raises(HTTPException) as refused:
        asyncio.run(hold())
    assert refused.value.status_code == 413


def test_pixels_in_progress_stay_below_the_limit_in_order_of_arrival() -> None:
    """A large image does not wait for ever behind small ones that come after it."""
    begun: list[int] = []

    async def scenario() -> None:
        admission, most, used = Admission(Limits(pixels=100)), 0, 0

        async def hold(number: int) -> None:
            nonlocal most, used
            async with admission.pixels(number):
                begun.append(number)
                used += number
                most = max(most, used)
                await asyncio.sleep(0.01)
                used -= number

        async with asyncio.timeout(10):
            await asyncio.gather(*(hold(number) for number in (60, 30, 100, 10, 11, 12, 90)))
        assert 90 <= most <= 100
        assert used == 0

    asyncio.run(scenario())
    assert begun == [60, 30, 100, 10, 11, 12, 90]


def test_giving_up_while_waiting_takes_nothing() -> None:
    async def scenario() -> None:
        admission = Admission(Limits(pixels=100))

        async def hold() -> None:
            async with admission.pixels(100):
                await asyncio.sleep(10)

        first = asyncio.create_task(hold())
        await asyncio.sleep(0)
        second, third = asyncio.create_task(hold()), asyncio.create_task(hold())
        await asyncio.sleep(0)
        for task in (second, first):
            task.cancel()
            await asyncio.wait({task})
        await asyncio.sleep(0.01)
        third.cancel()
        await asyncio.wait({third})
        async with asyncio.timeout(1), admission.pixels(100):
            pass

    asyncio.run(scenario())
