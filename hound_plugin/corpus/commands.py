"""Arguments of ``hound corpus ...`` and what each command calls; heavy imports are inside the functions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hound_plugin.engines.arguments import add_engine_arguments

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
    parser.add_argument("--only", nargs="+", metavar="ID", help=f"ids, or prefixes ending in * (default: {default})")
    parser.add_argument("--folder", type=Path, default=Path("data"), help="folder for all corpora (default: data)")


def add_list(commands: Commands) -> None:
    """``hound corpus list``."""
    parser = _parser(
        commands,
        "list",
        "all corpora, and which of them are on this machine",
        "Shows every corpus with its id, approximate number of rows, size on the hub, and what has been downloaded and "
        "extracted. `?` means that the authors state no number. Nothing is downloaded.",
        "  hound corpus list\n  hound corpus list --only 'test_*' --json",
    )
    _add_selection(parser, "all")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
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
        "download records and archives from the hub",
        "Downloads what is missing, after comparing its size with the free space; an interrupted download resumes "
        "where it stopped. HF_ENDPOINT and HF_TOKEN are honoured. Records go where dataset_info.json expects them.",
        "  hound corpus download --only dpo_17k frames_300k   what DPO needs, 150 GB\n"
        "  hound corpus download --only test_msvd test_msvd_official frames_test_msvd\n"
        "  hound corpus download --only dpo_17k --with-media  also the archives of its frames",
    )
    _add_selection(parser, "none; `--only '*'` is everything, about 600 GB")
    parser.add_argument("--with-media", action="store_true", help="also the archives with the records' media")
    parser.add_argument("--revision", default="main", help="branch, tag or commit on the hub (default: main)")
    parser.add_argument("--retries", type=int, default=5, help="retries after a broken transfer, per file (default: 5)")
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
    paths = download(arguments.folder, corpora, arguments.revision, arguments.retries)
    print(f"{len(paths)} files under {arguments.folder}")
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
        "a killed run resumes. Links, devices and paths outside the folder are refused, and nothing from such an "
        "archive is kept. Extracted archives may be removed.",
        "  hound corpus extract\n  hound corpus extract --only frames_300k --processes 8",
    )
    _add_selection(parser, "all downloaded ones")
    parser.add_argument("--processes", type=int, help="archives at a time (default: cores, at most 8)")
    limits = Limits()
    parser.add_argument("--max-member", type=float, default=limits.member, help="largest file, in bytes (default: 2e9)")
    parser.add_argument("--max-total", type=float, default=limits.total, help="bytes of one archive (default: 4e11)")
    parser.add_argument(
        "--max-members", type=int, default=limits.members, help="files of one archive (default: 5000000)"
    )
    parser.add_argument(
        "--max-ratio", type=float, default=limits.ratio, help="unpacked bytes per packed byte (default: 200)"
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
            f"hound: none of these archives is in {arguments.folder}; run `hound corpus download --only ID`, or name "
            "another --folder",
            file=sys.stderr,
        )
        return FAILED
    count = extract(work, arguments.processes)
    print(f"{count} archives extracted, {len(work) - count} already were; media_dir: {arguments.folder / 'frames'}")
    return DONE


def add_validate(commands: Commands) -> None:
    """``hound corpus validate``."""
    from hound_plugin.corpus.checking import KINDS

    parser = _parser(
        commands,
        "validate",
        "check the rows and media of a data file",
        "Checks a JSONL file (or a JSON array of modest size) in constant memory: fields, roles, placeholders against "
        "media, whether media exist or are readable. Prints a table of problems and writes the bad rows to "
        "NAME.bad.jsonl. The exit code is 1 if there are problems.",
        "  hound corpus validate data/video_instruction/train/dpo/sft_dpo_17k.jsonl --media-dir data/frames\n"
        "  hound corpus validate pairs.jsonl --media none\n"
        "  hound corpus validate theirs.jsonl --media-dir /disk --fix-paths --output ours.jsonl",
    )
    parser.add_argument("file", type=_row_file, metavar="FILE", help="JSONL, Parquet or a JSON array; or its URL")
    parser.add_argument("--media-dir", help="folder that the records' paths are relative to (default: the current one)")
    parser.add_argument(
        "--media",
        choices=("none", "exists", "open"),
        default="exists",
        help="media: do not check, check that they exist, or open the first frame or header (default: exists)",
    )
    parser.add_argument("--kind", choices=KINDS, default="auto", help="what the rows are for (default: auto, training)")
    parser.add_argument("--limit", type=int, help="check only the first LIMIT rows")
    parser.add_argument("--processes", type=int, default=1, help="parallel processes for --media open (default: 1)")
    parser.add_argument("--report", type=Path, help="JSONL of bad rows (default: NAME.bad.jsonl)")
    parser.add_argument(
        "--fix-paths", action="store_true", help="find clips by name under --media-dir and write a corrected file"
    )
    parser.add_argument("--output", type=Path, help="corrected file (default: NAME.fixed.jsonl)")
    parser.add_argument("--drop-bad", action="store_true", help="leave bad rows out of the corrected file")
    parser.add_argument("--force", action="store_true", help="overwrite an existing corrected file")
    add_engine_arguments(parser, options=True)
    parser.set_defaults(run=_validate)


def _row_file(text: str) -> Path | str:
    from hound_plugin.records.row_sources import is_url

    return text if is_url(text) else Path(text)


def _validate(arguments: argparse.Namespace) -> int:
    from hound_plugin.corpus.validate import Options, default_fixed, default_report, print_result, validate
    from hound_plugin.engines.arguments import engine_of_options
    from hound_plugin.engines.choice import make_engine
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
    result = validate(arguments.file, options, make_engine(engine_of_options(arguments)))
    print_result(result, options)
    return FAILED if result.bad else DONE


def add_convert(commands: Commands) -> None:
    """``hound corpus convert``."""
    from hound_plugin.corpus.dataset_conversion import CAPTION_PROMPTS

    parser = _parser(
        commands,
        "convert",
        "convert other people's data to our format, and split it by clip",
        "Reads JSON or JSONL of LLaVA, ShareGPT or OpenAI messages, questions and answers, captions, or preferences, "
        'and writes JSONL for `"formatting": "hound"`. With --split, every clip is in the training file or in the '
        "held-out one, never in both; only its name decides, so it is on the same side in every file. Rows that cannot "
        "be used are listed in NAME.bad.jsonl, with reasons; nothing else is written unless --on-bad-rows is skip.",
        "  hound corpus convert theirs.json ours.jsonl\n"
        "  hound corpus convert ours.jsonl ours.jsonl --split 0.05 --seed 1    ours.train.jsonl, ours.heldout.jsonl\n"
        "  hound corpus convert pairs.jsonl kto.jsonl --labels\n"
        "  hound corpus convert captions.jsonl sft.jsonl --caption-prompt 'What happens?'",
    )
    parser.add_argument("source", type=_row_file, metavar="SRC", help="JSONL, Parquet or a JSON array; or its URL")
    parser.add_argument("target", type=Path, metavar="DST", help="JSONL to write")
    parser.add_argument("--split", type=float, metavar="FRACTION", help="share of clips to hold out")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default: 0)")
    about = " / ".join(CAPTION_PROMPTS.values())
    parser.add_argument("--caption-prompt", help=f"question for rows that are captions (default: {about})")
    parser.add_argument("--keep", nargs="+", default=[], metavar="FIELD", help="other fields to keep")
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    parser.add_argument(
        "--on-bad-rows",
        choices=("error", "skip"),
        default="error",
        help="rows that cannot be used: stop and write only a list of them, or leave them out (default: error)",
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
        print(f"left out, as their clips are on both sides: {result.straddling:,} rows")
    if result.bad_rows:
        print(f"left out: {result.bad:,} rows, with reasons in {result.bad_rows}", file=sys.stderr)
    return DONE


def add_prepare(commands: Commands, run: Callable[[argparse.Namespace], int]) -> None:
    """``hound corpus prepare``; ``run`` is what it does, as this layer knows no model."""
    parser = _parser(
        commands,
        "prepare",
        "decode, or encode, the media of a training ahead",
        "Reads the YAML file of a training and fills the `hound.feature_cache` that it names, or else its "
        "`hound.frame_cache`, with the media of its data sets. What is in the cache is kept, so a stopped run "
        "continues. Media that cannot be read are listed in bad_media.jsonl, in the folder `prepare` of the cache, and "
        "the exit code is 1.",
        "  hound corpus prepare examples/yaml/demo_dpo.yaml\n"
        "  hound corpus prepare dpo.yaml hound.feature_cache=features --processes 8\n"
        "  CUDA_VISIBLE_DEVICES=1 hound corpus prepare dpo.yaml --part 2/4    one of four GPUs\n"
        "  hound corpus prepare dpo.yaml --engine ray --engine-options actors=4 gpus=1",
    )
    parser.add_argument("recipe", metavar="YAML", help="of the training")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override keys of the file")
    parser.add_argument("--processes", type=int, help="processes that decode (default: cores, at most 16)")
    parser.add_argument(
        "--part", type=_part, default=(1, 1), metavar="I/N", help="only each Nth medium, from the Ith on"
    )
    add_engine_arguments(parser, options=True)
    parser.set_defaults(run=run)


def _part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, such as 2/4; got {text!r}")
    return int(number), int(count)


def add_all(commands: Commands, prepare: Callable[[argparse.Namespace], int]) -> None:
    """Add every command of the group; ``prepare`` as in :func:`add_prepare`."""
    for add in (add_list, add_download, add_extract, add_validate, add_convert):
        add(commands)
    add_prepare(commands, prepare)
