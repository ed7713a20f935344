"""The demo's purchases, and files of events of the user's own."""

from __future__ import annotations

import gzip
import json
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chain.errors import BadFile
from failover.purchases import Line, Skipped, cdnow, cents, read_events

Read = Callable[..., list[Line]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads `content` as a file of that name."""

    def read(name: str, content: str | bytes, **options: object) -> list[Line]:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return list(read_events(path, **options))  # type: ignore[arg-type]

    return read


@pytest.fixture
def fault(read: Read, tmp_path: Path) -> Callable[..., str]:
    """What is said about a file that can't be used, its folder left out."""

    def fault(name: str, content: str | bytes, **options: object) -> str:
        with pytest.raises(BadFile) as caught:
            read(name, content, **options)
        return caught.value.message.replace(f"{tmp_path}/", "")

    return fault


Fault = Callable[..., str]


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    return list(cdnow())


@pytest.fixture(scope="module")
def rows() -> list[tuple[bytes, ...]]:
    """Customer, date, CDs, dollars and cents of the packed file."""
    packed = files("failover").joinpath("data", "cdnow_master.txt.gz").read_bytes()
    pattern = rb"^ *(\d{5}) +(\d{8}) +(\d+) +(\d+)\.(\d\d)\s*$"
    return re.findall(pattern, gzip.decompress(packed), re.MULTILINE)


class TestCdnow:
    """Held against the packed file itself, read in another way."""

    def test_there_are_69659_purchases_of_23570_customers(self, lines: list[Line]) -> None:
        assert len(lines) == 69_659
        assert len({line.stream for line in lines}) == 23_570

    def test_cds_and_dollars_add_up_to_the_cent(
        self, lines: list[Line], rows: list[tuple[bytes, ...]]
    ) -> None:
        bought = [json.loads(line.event.data) for line in lines]
        assert len(rows) == len(bought)
        assert sum(b["cds"] for b in bought) == sum(int(row[2]) for row in rows)
        assert sum(cents(b["dollars"]) for b in bought) == sum(int(row[3] + row[4]) for row in rows)

    def test_every_purchase_is_on_its_customers_stream_in_the_order_of_the_file(
        self, lines: list[Line], rows: list[tuple[bytes, ...]]
    ) -> None:
        for line, (customer, date, *_) in zip(lines, rows, strict=True):
            assert line.stream == f"customer-{customer.decode()}"
            assert json.loads(line.event.data)["date"].replace("-", "") == date.decode()

    def test_the_ids_are_the_same_every_time_and_all_different(self, lines: list[Line]) -> None:
        ids = [line.event.id for line in lines]
        assert ids == [line.event.id for line in cdnow()]
        assert len(set(ids)) == len(ids)


class TestJsonLines:
    def test_a_line_is_an_event(self, read: Read) -> None:
        text = '{"stream": "cart-1", "type": "Added", "data": {"n": 1}, "metadata": {"by": "ada"}}'
        (line,) = read("cart.jsonl", text)
        assert (line.number, line.stream, line.event.type) == (1, "cart-1", "Added")
        assert json.loads(line.event.data) == {"n": 1}
        assert json.loads(line.event.metadata) == {"by": "ada"}

    @pytest.mark.parametrize("data", [None, 0, "text", [1, 2], {}, 10**40, "ÿ \U0001f600 \ud800 \0"])
    def test_the_data_is_any_json(self, read: Read, data: object) -> None:
        (line,) = read("a.jsonl", json.dumps({"stream": "s", "type": "T", "data": data}))
        assert json.loads(line.event.data) == data

    def test_an_id_of_its_own_is_kept(self, read: Read) -> None:
        ident = "0189aaaa-0000-7000-8000-000000000001"
        (line,) = read("a.jsonl", json.dumps({"stream": "s", "id": ident, "n": 1}))
        assert str(line.event.id) == ident
        assert json.loads(line.event.data) == {"n": 1}

    def test_ids_follow_from_the_file_and_the_line(self, read: Read) -> None:
        row = '{"stream": "s", "type": "T", "data": 1}\n'
        first, again = read("a.jsonl", row * 2), read("b.jsonl", row * 2)
        assert [line.event.id for line in first] == [line.event.id for line in again]
        assert len({line.event.id for line in first}) == 2
        assert read("a.jsonl", row * 3)[0].event.id != first[0].event.id

    def test_empty_lines_and_a_byte_order_mark_are_no_events(self, read: Read) -> None:
        content = b'\xef\xbb\xbf{"stream": "a", "data": 1}\r\n\n   \n{"stream": "b", "data": 2}'
        assert [(line.number, line.stream) for line in read("a.jsonl", content)] == [(1, "a"), (4, "b")]

    @pytest.mark.parametrize(
        ("bad", "said"),
        [
            ("{", "not JSON"),
            ("[1]", "not a JSON object"),
            ("null", "not a JSON object"),
            ("[" * 100_000, "not JSON"),
            ('{"stream": "s", "data": ' + "9" * 5000 + "}", "not JSON"),
            ('{"stream": "s", "data": 1e999}', "Out of range float"),
            ('{"stream": "s", "data": NaN}', "Out of range float"),
            ('{"stream": "s", "id": "no id"}', "badly formed"),
            ('{"stream": "$epoch", "data": 1}', "is a system stream"),
            ('{"stream": "", "data": 1}', "the stream name is empty"),
            ('{"stream": "\\ud800", "data": 1}', "not valid UTF-8"),
            ('{"stream": "\\u0000", "data": 1}', "NUL"),
            ('{"stream": null, "data": 1}', "stream is no text"),
            ('{"stream": "s", "type": 5}', "type is no text"),
            ('{"stream": "s", "type": ""}', "the type of event 0 is empty"),
            ('{"data": 1}', "there is no 'customer_id', which names the stream"),
        ],
    )
    def test_a_bad_line_is_named_by_its_number(self, fault: Fault, bad: str, said: str) -> None:
        message = fault("a.jsonl", '{"stream": "s", "data": 1}\n\n' + bad)
        assert message.startswith("a.jsonl:3: ")
        assert said in message

    def test_what_is_not_utf8_is_a_bad_line(self, fault: Fault) -> None:
        assert fault("a.jsonl", b'{"stream": "a"}\n{"stream": "\xff"}').startswith("a.jsonl:2: not JSON")


class TestCsv:
    def test_a_row_is_an_event_on_the_stream_that_its_columns_name(self, read: Read) -> None:
        lines = read("a.csv", "shop,nr,cds\nmain,7,2\n", stream="{shop}-{nr}", type_="Bought")
        assert [(line.number, line.stream, line.event.type) for line in lines] == [(2, "main-7", "Bought")]
        assert json.loads(lines[0].event.data) == {"shop": "main", "nr": "7", "cds": "2"}

    def test_columns_stream_and_type_are_taken_as_they_are(self, read: Read) -> None:
        (line,) = read("a.csv", "stream,type,n\ncart-1,Added,1\n")
        assert (line.stream, line.event.type) == ("cart-1", "Added")
        assert json.loads(line.event.data) == {"n": "1"}

    def test_every_other_column_is_data_whatever_its_name(self, read: Read) -> None:
        (line,) = read("a.csv", "id,data,metadata\n1,2,3\n", stream="order-{id}")
        assert line.stream == "order-1"
        assert json.loads(line.event.data) == {"id": "1", "data": "2", "metadata": "3"}
        assert line.event.metadata == b""

    def test_a_field_keeps_every_character(self, read: Read) -> None:
        odd = 'a\nb\r\nc,"d" \u2028 \x85 \x0b \x1c ÿ'
        quoted = odd.replace('"', '""')
        (line,) = read("a.csv", f'stream,text\ns,"{quoted}"\n')
        assert json.loads(line.event.data) == {"text": odd}

    def test_a_byte_order_mark_and_empty_lines_are_no_columns_and_no_events(self, read: Read) -> None:
        assert [line.stream for line in read("a.csv", b"\xef\xbb\xbfstream,n\r\n\r\na,1\r\n")] == ["a"]

    @pytest.mark.parametrize("content", ["", "\n\n", "stream,n\n", "\ufeff"])
    def test_no_rows_are_no_events(self, read: Read, content: str) -> None:
        assert read("a.csv", content) == []

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"stream,n\na,1\nb\n", "a.csv:3: 1 columns, where the header has 2"),
            (b"stream,n\na,1,2\n", "a.csv:2: 3 columns, where the header has 2"),
            (b"stream,n\na,1\nb,\xff\n", "a.csv:3: not UTF-8"),
            (b'stream,n\na,"1\n', "a.csv:2: unexpected end of data"),
            (b"stream,n\na," + b"1" * 200_000, "a.csv:2: field larger than"),
            (b"stream,n,n\na,1,2\n", "a.csv:1: the header names a column twice"),
            (b"stream,\xff\na,1\n", "a.csv:1: not UTF-8"),
            (b"n\n1\n", "a.csv:2: there is no 'customer_id', which names the stream"),
            (b"stream,n\n$ledger,1\n", "a.csv:2: stream '$ledger' is a system stream"),
        ],
    )
    def test_a_bad_line_is_named_by_its_number(self, fault: Fault, content: bytes, said: str) -> None:
        assert fault("a.csv", content).startswith(said)


class TestTemplate:
    @pytest.mark.parametrize(
        "template",
        [
            "{n.__class__}",
            "{n.__class__.__mro__}",
            "{n[0]}",
            "{n!r}",
            "{n:>9999999999}",
            "{}",
            "{0}",
            "{self}",
        ],
    )
    def test_a_template_reaches_columns_and_nothing_else(self, fault: Fault, template: str) -> None:
        said = fault("a.csv", "n\n1\n", stream=f"s-{template}")
        assert said == f"a.csv:2: there is no {template[1:-1]!r}, which names the stream"

    def test_a_column_may_have_any_name(self, read: Read) -> None:
        (line,) = read("a.csv", "n.__class__,{\n1,2\n", stream="s-{n.__class__}")
        assert line.stream == "s-1"

    def test_what_a_column_holds_is_not_a_template(self, read: Read) -> None:
        (line,) = read("a.csv", "n,m\n{m},2\n", stream="s-{n}")
        assert line.stream == "s-{m}"


class TestSkipping:
    def test_bad_lines_are_counted_and_the_first_is_kept(self, read: Read, tmp_path: Path) -> None:
        skipped = Skipped()
        good = '{"stream": "s", "data": 1}\n'
        lines = read("a.jsonl", good + "{\n" + good + "5\n" + good, skipped=skipped)
        assert [line.number for line in lines] == [1, 3, 5]
        assert skipped.count == 2
        assert skipped.first.startswith(f"{tmp_path}/a.jsonl:2: ")

    def test_a_bad_row_spoils_no_other(self, read: Read) -> None:
        skipped = Skipped()
        content = b'stream,n\na,1\nb\nc,\xff\nd,"x"y\ne,' + b"1" * 200_000 + b"\nf,2\n"
        assert [line.stream for line in read("a.csv", content, skipped=skipped)] == ["a", "f"]
        assert skipped.count == 4

    def test_a_file_without_a_usable_header_is_refused_all_the_same(self, fault: Fault) -> None:
        assert fault("a.csv", "n,n\n1,2\n", skipped=Skipped()).startswith("a.csv:1: ")


class TestFiles:
    @pytest.mark.parametrize("name", ["nothing.csv", "nothing.jsonl", "."])
    def test_a_file_that_can_not_be_read_is_named(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(BadFile, match=re.escape(str(tmp_path / name))):
            list(read_events(tmp_path / name))


PIECES = st.sampled_from(
    [
        *(b'{"stream":', b'"type":', b'"id":', b'"data":', b'"metadata":', b'"s"', b"null", b"1e999", b"-"),
        *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\ud800", b"\\u0000", b"9" * 5000, b"[" * 2000),
        *(b"stream,type\n", b"customer_id,n\n", b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"$", b"a"),
    ]
)
ROWS = st.fixed_dictionaries(
    {}, optional={key: st.none() | st.integers() | st.text() for key in ("stream", "type", "id", "data", "x")}
)
TEMPLATES = st.text(st.sampled_from("{}x.[]!:0_ax"), max_size=10) | st.just("{x.__class__}")


@settings(deadline=None, max_examples=200)
@given(
    st.binary() | st.lists(PIECES).map(b"".join) | ROWS.map(lambda row: json.dumps(row).encode()),
    st.sampled_from(["a.csv", "a.jsonl", "a.CSV", "a"]),
    TEMPLATES,
    st.booleans(),
)
@example(b'{"x": {"a": 1}}', "a.jsonl", "{x[b]}", False)
def test_any_file_gives_events_or_is_a_bad_file(content: bytes, name: str, template: str, skip: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        lines: list[Line] = []
        with suppress(BadFile):
            lines += read_events(path, stream=template, skipped=Skipped() if skip else None)
        assert len({line.number for line in lines}) == len(lines)
        for line in lines:
            json.loads(line.event.data, parse_constant=pytest.fail)


class TestCents:
    @given(st.integers(0, 10**15))
    def test_an_amount_is_exact(self, amount: int) -> None:
        assert cents(f"{amount // 100}.{amount % 100:02}") == amount

    @pytest.mark.parametrize(
        "text",
        ["", "free", None, "NaN", "sNaN", "Infinity", "-Infinity", "1e999999999", "1e99999999", [], True],
    )
    def test_what_is_no_amount_is_nothing(self, text: object) -> None:
        assert cents(text) == 0

    @given(st.text() | st.floats() | st.integers())
    def test_nothing_breaks_the_books(self, value: object) -> None:
        assert isinstance(cents(value), int)
