"""Arguments of ``hound corpus ...`` and what each command calls; imports of real work stand inside the functions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DONE = 0
FAILED = 1


def _parser(commands: Commands, name: str, summary: str, description: str, examples: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_selection(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--only", nargs="+", metavar="ID", help=f"ids, or beginnings with * (default: {default})")
    parser.add_argument("--folder", type=Path, default=Path("data"), help="where everything lies (default: data)")


def add_list(commands: Commands) -> None:
    """``hound corpus list``."""
    parser = _parser(
        commands,
        "list",
        "what there is, and what of it is here",
        "Shows every corpus with id, about how many rows, size on the hub, and what was downloaded and extracted. "
        "`?` where the authors state no number. Nothing is fetched.",
        "  hound corpus list\n  hound corpus list --only 'test_*' --json",
    )
    _add_selection(parser, "all")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.set_defaults(run=_list)


def _list(arguments: argparse.Namespace) -> int:
    import json

    from hound_plugin.corpus.inventory import take_stock, to_records, to_table
    from hound_plugin.corpus.schema import select

    statuses = take_stock(arguments.folder, select(arguments.only))
    print(json.dumps(to_records(statuses), indent=2) if arguments.json else to_table(statuses))
    return DONE


def add_download(commands: Commands) -> None:
    """``hound corpus download``."""
    parser = _parser(
        commands,
        "download",
        "fetch records and archives from the hub",
        "Fetches what is not here yet. Sizes are asked for and free space is checked first; a download that broke off "
        "goes on where it stopped. HF_ENDPOINT and HF_TOKEN hold. Records lie where dataset_info.json expects them.",
        "  hound corpus download --only dpo_17k frames_300k   what DPO needs, 150 GB\n"
        "  hound corpus download --only test_msvd test_msvd_official frames_test_msvd\n"
        "  hound corpus download --only dpo_17k --with-media  the archives of its frames too",
    )
    _add_selection(parser, "none; `--only '*'` is everything, some 600 GB")
    parser.add_argument("--with-media", action="store_true", help="also the archives that hold the records' media")
    parser.add_argument("--revision", default="main", help="branch, tag or commit on the hub (default: main)")
    parser.add_argument("--retries", type=int, default=5, help="tries after a broken transfer, each file (default: 5)")
    parser.set_defaults(run=_download)


def _download(arguments: argparse.Namespace) -> int:
    from hound_plugin.corpus.download import download
    from hound_plugin.corpus.schema import CORPORA, select
    from hound_plugin.errors import SettingsError

    if arguments.only is None:
        raise SettingsError(f"Expected --only with ids of corpora (`hound corpus list`): {', '.join(CORPORA)}.")
    corpora = select(arguments.only)
    if arguments.with_media:
        corpora = select([*(corpus.id for corpus in corpora), *(name for corpus in corpora for name in corpus.needs)])
    places = download(arguments.folder, corpora, arguments.revision, arguments.retries)
    print(f"{len(places)} files under {arguments.folder}")
    if any(corpus.target for corpus in corpora):
        print(f"next: hound corpus extract --folder {arguments.folder}")
    return DONE


def add_extract(commands: Commands) -> None:
    """``hound corpus extract``."""
    from hound_plugin.corpus.archive import Limits

    parser = _parser(
        commands,
        "extract",
        "unpack downloaded archives",
        "Unpacks downloaded archives into FOLDER/frames, several at a time. Finished archives are not unpacked again; "
        "a run that was killed goes on. Links, devices and paths outside the folder are refused, and nothing of such "
        "an archive is kept. Extracted archives may be removed.",
        "  hound corpus extract\n  hound corpus extract --only frames_300k --processes 8",
    )
    _add_selection(parser, "all that were downloaded")
    parser.add_argument("--processes", type=int, help="archives at a time (default: cores, at most 8)")
    limits = Limits()
    parser.add_argument("--max-member", type=float, default=limits.member, help="largest file, in bytes (default: 2e9)")
    parser.add_argument("--max-total", type=float, default=limits.total, help="bytes of one archive (default: 4e11)")
    parser.add_argument(
        "--max-members", type=int, default=limits.members, help="files of one archive (default: 5000000)"
    )
    parser.add_argument(
        "--max-ratio", type=float, default=limits.ratio, help="bytes unpacked for each packed one (default: 200)"
    )
    parser.set_defaults(run=_extract)


def _extract(arguments: argparse.Namespace) -> int:
    from hound_plugin.corpus.archive import Limits
    from hound_plugin.corpus.extract import extract, jobs
    from hound_plugin.corpus.schema import select

    limits = Limits(int(arguments.max_member), int(arguments.max_total), arguments.max_members, arguments.max_ratio)
    work = jobs(arguments.folder, select(arguments.only, ["archives"]), limits)
    if not work:
        print(
            f"hound: no archive of these was downloaded to {arguments.folder}; run `hound corpus download --only ID`, "
            "or name another --folder",
            file=sys.stderr,
        )
        return FAILED
    count = extract(work, arguments.processes)
    print(f"{count} archives extracted, {len(work) - count} were already; media_dir: {arguments.folder / 'frames'}")
    return DONE


def add_validate(commands: Commands) -> None:
    """``hound corpus validate``."""
    from hound_plugin.corpus.checking import KINDS

    parser = _parser(
        commands,
        "validate",
        "check the rows and media of a data file",
        "Goes through a JSONL file (or a JSON array of modest size) in constant memory: fields, roles, placeholders "
        "against media, media present or readable. Prints a table of problems and writes the bad rows to "
        "NAME.bad.jsonl. Exit code 1 when there are problems.",
        "  hound corpus validate data/video_instruction/train/dpo/sft_dpo_17k.jsonl --media-dir data/frames\n"
        "  hound corpus validate pairs.jsonl --media none\n"
        "  hound corpus validate theirs.jsonl --media-dir /disk --fix-paths --output ours.jsonl",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="JSONL, or a JSON array")
    parser.add_argument("--media-dir", help="folder that the records' paths begin in (default: where you are)")
    parser.add_argument(
        "--media",
        choices=("none", "exists", "open"),
        default="exists",
        help="look for media not at all, for their presence, or open the first frame or header (default: exists)",
    )
    parser.add_argument("--kind", choices=KINDS, default="auto", help="who reads the rows (default: auto: training)")
    parser.add_argument("--limit", type=int, help="look at the first LIMIT rows only")
    parser.add_argument("--processes", type=int, default=1, help="with --media open: at a time (default: 1)")
    parser.add_argument("--report", type=Path, help="JSONL of bad rows (default: NAME.bad.jsonl)")
    parser.add_argument(
        "--fix-paths", action="store_true", help="find clips by name under --media-dir and write a corrected file"
    )
    parser.add_argument("--output", type=Path, help="corrected file (default: NAME.fixed.jsonl)")
    parser.add_argument("--drop-bad", action="store_true", help="leave bad rows out of the corrected file")
    parser.add_argument("--force", action="store_true", help="replace a corrected file that exists")
    parser.set_defaults(run=_validate)


def _validate(arguments: argparse.Namespace) -> int:
    from hound_plugin.corpus.validate import Options, default_fixed, default_report, print_findings, validate
    from hound_plugin.errors import SettingsError

    if (arguments.output or arguments.drop_bad) and not arguments.fix_paths:
        raise SettingsError("Expected --fix-paths with --output and --drop-bad.")
    options = Options(
        media_dir=arguments.media_dir,
        media=arguments.media,
        kind=arguments.kind,
        limit=arguments.limit,
        processes=arguments.processes,
        report=arguments.report or default_report(arguments.file),
        fixed=(arguments.output or default_fixed(arguments.file)) if arguments.fix_paths else None,
        drop_bad=arguments.drop_bad,
        force=arguments.force,
    )
    findings = validate(arguments.file, options)
    print_findings(findings, options)
    return FAILED if findings.bad else DONE


def add_convert(commands: Commands) -> None:
    """``hound corpus convert``."""
    from hound_plugin.corpus.dataset_conversion import CAPTION_PROMPT

    parser = _parser(
        commands,
        "convert",
        "other people's data to ours, and a split by clip",
        "Reads JSON or JSONL of LLaVA, ShareGPT or OpenAI messages, questions and answers, captions, or preferences, "
        'and writes JSONL for `"formatting": "hound"`. With --split, every clip is in the training file or in the '
        "held-out one, never in both, by its name alone: it falls on the same side in every file. Rows that cannot be "
        "used are listed in NAME.bad.jsonl, with reasons; nothing else is written then, unless told to leave them out.",
        "  hound corpus convert theirs.json ours.jsonl\n"
        "  hound corpus convert ours.jsonl ours.jsonl --split 0.05 --seed 1    ours.train.jsonl, ours.heldout.jsonl\n"
        "  hound corpus convert pairs.jsonl kto.jsonl --labels\n"
        "  hound corpus convert captions.jsonl sft.jsonl --caption-prompt 'What happens?'",
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="JSONL, or a JSON array")
    parser.add_argument("target", type=Path, metavar="DST", help="JSONL to write")
    parser.add_argument("--split", type=float, metavar="FRACTION", help="share of clips to hold out")
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    parser.add_argument("--caption-prompt", default=CAPTION_PROMPT, help="question for rows that are captions")
    parser.add_argument("--keep", nargs="+", default=[], metavar="FIELD", help="other fields to take over")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    parser.add_argument(
        "--on-bad-rows",
        choices=("error", "skip"),
        default="error",
        help="rows that cannot be used: stop and write nothing but their list, or leave them out (default: error)",
    )
    parser.add_argument(
        "--max-bad-rows", type=float, default=0.01, help="largest share that `skip` may leave out (default: 0.01)"
    )
    parser.add_argument("--labels", action="store_true", help="each preference pair as two labelled answers, for KTO")
    parser.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace) -> int:
    from hound_plugin.corpus.dataset_conversion import convert

    result = convert(
        arguments.source,
        arguments.target,
        split=arguments.split,
        seed=arguments.seed,
        caption_prompt=arguments.caption_prompt,
        keep=arguments.keep,
        labels=arguments.labels,
        force=arguments.force,
        on_bad_rows=arguments.on_bad_rows,
        max_bad_rows=arguments.max_bad_rows,
    )
    for remark in result.remarks:
        print(remark)
    for path, rows in result.written.items():
        print(f"{path}: {rows:,} rows")
    if result.straddling:
        print(f"left out, with clips of both sides: {result.straddling:,} rows")
    if result.bad_rows:
        print(f"left out: {result.bad:,} rows, with reasons in {result.bad_rows}", file=sys.stderr)
    return DONE


def add_all(commands: Commands) -> None:
    """Every command of the group."""
    for add in (add_list, add_download, add_extract, add_validate, add_convert):
        add(commands)
