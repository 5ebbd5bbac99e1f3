"""Generations are found the same way in SQLite and in PostgreSQL, whatever is asked for at once."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from proxy.catalog.engine import Catalog
from proxy.catalog.generations import Generations
from proxy.catalog.prompts import prompt_hash
from proxy.catalog.search import MAX_LOOKED_AT, Search
from proxy.errors import BadRequest
from proxy.records import Generation, Registration, Status

URL = "https://v3b.fal.media/files/b/one/clip.mp4"
NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def generations(catalog: Catalog) -> Generations:
    return Generations(catalog, clip_url=str)


@pytest.fixture
def search(catalog: Catalog) -> Search:
    return Search(catalog)


async def found(search: Search, **wanted: Any) -> list[str]:
    """Ids on the first page."""
    return [item.request_id for item in (await search.find(**wanted)).items]


async def all_pages(search: Search, **wanted: Any) -> list[str]:
    """Ids on all pages, in order."""
    ids: list[str] = []
    after = None
    while True:
        page = await search.find(**wanted, after=after)
        ids += [item.request_id for item in page.items]
        after = page.next
        if after is None:
            return ids


async def test_pages_show_every_row_once_newest_first(
    generations: Generations, search: Search
) -> None:
    items = [
        Registration(request_id=f"r{n}", created_at=NOON + timedelta(microseconds=n // 4))
        for n in range(23)
    ]
    await generations.register(items)
    newest_first = sorted(items, key=lambda item: (item.created_at, item.request_id), reverse=True)
    assert await all_pages(search, limit=5) == [item.request_id for item in newest_first]


async def test_filters_narrow_a_listing(generations: Generations, search: Search) -> None:
    await generations.register(
        [
            Registration(request_id="ab_1", model="m1", fal_url=URL, created_at=NOON),
            Registration(request_id="abc1", model="m1", created_at=NOON),
            Registration(request_id="ab_2", model="m2", created_at=NOON),
            Registration(request_id="AB_3", model="m1", created_at=NOON),
        ]
    )
    assert await found(search, prefix="ab_") == ["ab_1", "ab_2"]
    assert await found(search, model="m1") == ["abc1", "ab_1", "AB_3"]
    assert await found(search, status=Status.AVAILABLE) == ["ab_1"]
    assert await found(search, model="m1", status=Status.PENDING, prefix="abc") == ["abc1"]
    assert await found(search, limit=0) == ["abc1"]


async def test_a_prompt_finds_what_it_made_however_it_is_spaced(
    generations: Generations, search: Search
) -> None:
    await generations.register(
        [
            Registration(request_id="a", prompt="a cat\n on a  mat", created_at=NOON),
            Registration(request_id="b", prompt="a dog", created_at=NOON),
            Registration(request_id="c", prompt="a cat on a mat", created_at=NOON + SECOND),
        ]
    )
    assert await found(search, prompt=" a cat on\ta mat ") == ["c", "a"]
    assert await found(search, prompt_hash=prompt_hash("a dog").upper()) == ["b"]
    assert await found(search, prompt="a dog", prompt_hash=prompt_hash("a dog")) == ["b"]
    assert await found(search, prompt="A cat on a mat") == []


async def test_since_is_inclusive_and_until_is_not(
    generations: Generations, search: Search
) -> None:
    await generations.register(
        [Registration(request_id=f"r{n}", created_at=NOON + n * SECOND) for n in range(5)]
    )
    window = {"since": NOON + SECOND, "until": NOON + 3 * SECOND}
    assert await found(search, **window) == ["r2", "r1"]
    assert await found(search, **window, prefix="r") == ["r1", "r2"]
    assert await all_pages(search, **window, limit=1) == ["r2", "r1"]
    assert await found(search, since=window["until"], until=window["since"]) == []


async def test_every_combination_of_filters_finds_exactly_what_fits(
    generations: Generations, search: Search
) -> None:
    """More rows than one page may look at, so that walks which leave rows out have to go on."""
    count = 2 * MAX_LOOKED_AT + 100
    rows = [
        Registration(
            request_id=f"{'ab'[n % 2]}{n * 7919 % count:05}",
            model=f"m{n % 3}",
            prompt_hash=prompt_hash(str(n % 2 + n % 5 % 2)),
            fal_url=URL if n % 40 else None,
            created_at=NOON + timedelta(seconds=n * 31 % count // 2),
        )
        for n in range(count)
    ]
    await generations.register(rows)
    middle = NOON + timedelta(seconds=count // 4)

    def fits(row: Registration, wanted: dict[str, Any]) -> bool:
        tests: dict[str, Callable[[Any], bool]] = {
            "status": lambda status: row.fal_url is None and status is Status.PENDING,
            "model": lambda model: row.model == model,
            "prefix": row.request_id.startswith,
            "prompt_hash": lambda hashed: row.prompt_hash == hashed,
            "since": lambda since: row.created_at is not None and row.created_at >= since,
            "until": lambda until: row.created_at is not None and row.created_at < until,
        }
        return all(tests[name](value) for name, value in wanted.items())

    choices: dict[str, list[Any]] = {
        "status": [None, Status.PENDING, Status.LOST],
        "model": [None, "m1"],
        "prefix": [None, "b", "a0007"],
        "prompt_hash": [None, prompt_hash("1")],
        "since": [None, middle],
        "until": [None, middle + timedelta(seconds=100)],
    }
    for values in product(*choices.values()):
        wanted = {
            name: value for name, value in zip(choices, values, strict=True) if value is not None
        }
        expected = [row for row in rows if fits(row, wanted)]
        if "prefix" in wanted:
            expected.sort(key=lambda row: row.request_id)
        else:
            expected.sort(key=lambda row: (row.created_at, row.request_id), reverse=True)
        ids = await all_pages(search, **wanted, limit=170)
        assert ids == [row.request_id for row in expected], wanted


async def test_a_page_that_looked_at_enough_says_where_to_go_on(
    generations: Generations, search: Search
) -> None:
    rows = [Registration(request_id=f"r{n:05}", model="m") for n in range(MAX_LOOKED_AT + 1)]
    await generations.register([*rows, Registration(request_id="r99999", model="rare")])
    first = await search.find(prefix="r", model="rare")
    assert first.items == ()
    assert first.next is not None
    second = await search.find(prefix="r", model="rare", after=first.next)
    assert [item.request_id for item in second.items] == ["r99999"]
    assert second.next is None


async def test_a_place_of_another_listing_is_a_place_in_this_one_too(
    generations: Generations, search: Search
) -> None:
    await generations.register(
        [Registration(request_id=name, created_at=NOON) for name in ("a1", "b1", "b2", "c1")]
    )
    page = await search.find(limit=3)
    assert [item.request_id for item in page.items] == ["c1", "b2", "b1"]
    assert await found(search, prefix="b", after=page.next) == ["b2"]
    assert await found(search, prefix="c", after=page.next) == ["c1"]
    assert await found(search, prefix="a", after=page.next) == []
    assert await found(search, until=NOON, after=page.next) == []


async def test_what_comes_back_is_the_whole_row(generations: Generations, search: Search) -> None:
    await generations.register([Registration(request_id="a", fal_url=URL, width=3, duration=1.5)])
    [item] = (await search.find()).items
    assert isinstance(item, Generation)
    assert item == await generations.get("a")


@pytest.mark.parametrize(
    "wanted",
    [
        *({"after": invented} for invented in ("x", "1.", ".a", "1.é", "²3.a", "1.a.b")),
        {"after": "9" * 30 + ".a"},
        {"after": "99" * 9 + ".a"},
        {"prefix": "no id/"},
        {"prefix": "_"},
        {"prefix": "a\0"},
        {"prefix": "a" * 129},
        {"prompt_hash": "0" * 63},
        {"prompt_hash": "x" * 64},
        {"prompt_hash": ""},
        {"prompt": "a", "prompt_hash": "0" * 64},
        {"prompt": "\ud800"},
        {"model": "a\0b"},
        {"model": "\udfff"},
    ],
)
async def test_what_cannot_be_meant_is_a_bad_request(
    search: Search, wanted: dict[str, str]
) -> None:
    with pytest.raises(BadRequest):
        await search.find(**wanted)  # type: ignore[arg-type]  # texts only
