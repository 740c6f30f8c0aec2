"""Runs: build the model, open the data, extract once, evaluate every head, record. What is recorded is never done twice."""

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from harness import provenance
from harness.dense import PerPixel
from harness.measure import CannotBuild, Model, Options, facts, identity
from harness.pictures import Gallery
from harness.plan import Job, compile_for, without_statistics
from harness.pooled import Pooled
from harness.progress import Progress
from leaderboards.results import Identity, Journal, JournalError, Record
from models.common.errors import UserError
from models.common.weights import Located
from tasks.common import low_data
from tasks.data import catalogue
from tasks.data.dataset import Dataset, usable
from tasks.data.reader import Reader
from tasks.protocols import DENSE


@dataclass
class Outcome:
    """What a call of `run` did: counts of runs, failures as (what, reason, mendable by the caller), and what was said once."""

    computed: int = 0
    already_done: int = 0
    extracted: int = 0
    failures: list[tuple[str, str, bool]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    said: set[str] = field(default_factory=set)
    pictures: list[Path] = field(default_factory=list)


def run(
    jobs: Sequence[Job],
    located: dict[str, Located],
    options: Options,
    journal: Journal,
    progress: Progress,
    outcome: Outcome,
) -> None:
    """Do every job, model by model and data set by data set, and add what happened to `outcome`.

    A failure is recorded with its reason, and the rest goes on.
    """
    done = set() if options.force else journal.done()
    gallery = Gallery(options.pictures) if options.panels else None
    for label, of_model in groupby(jobs, key=lambda job: job.card.label):
        of_model = list(of_model)
        model = Model(of_model[0].card, located[label], options)
        for name, group in groupby(of_model, key=lambda job: job.dataset.name):
            group = list(group)
            progress.prefix = f"{label} on "
            # Where the data set could not even be opened, its version is unknown, and the record of the failure says so.
            pending = {
                (job.task, job.fraction, draw, seed): identity(model, job, draw, seed)
                for job in group
                for draw, seed in job.runs
            }
            try:
                _evaluate(model, group, pending, done, journal, progress, outcome, gallery)
            except JournalError:
                raise
            except Exception as error:  # one broken run must not lose the sweep
                mendable = isinstance(error, UserError)
                reason = str(error) if mendable else traceback.format_exc()
                what = label if isinstance(error, CannotBuild) else f"{label} on {name}"
                outcome.failures.append((what, reason, mendable))
                where = {**provenance.machine(options.compute.device), "label": options.label}
                for failed in pending.values():
                    journal.append(Record(failed, "failed", {}, "", group[0].dataset.modality, where, reason))
                if isinstance(error, CannotBuild):
                    break
        model.close()
    progress.prefix = ""
    progress.close()
    outcome.pictures += gallery.write() if gallery else []


Key = tuple[str, str, int, int | None]  # task, fraction, draw, seed: what tells one run on a data set from another


def _open(group: Sequence[Job], options: Options) -> Dataset:
    job = group[0]
    dataset = catalogue.open_dataset(job.dataset, job.path, options.protocol.band_names)
    if options.strict and dataset.warnings:
        raise UserError(f"{job.dataset.name}: {dataset.warnings[0]} (--strict makes warnings errors)")
    return dataset


def _under(model: Model, group: Sequence[Job], dataset: Dataset, progress: Progress) -> Pooled | PerPixel:
    """The data set under the model's transform, without samples that cannot be read by it."""
    task = group[0].task  # tasks on one data set share its kind of label, and with it their sizes
    where = (model.options.protocol, task, dataset.card.name)
    if isinstance(dataset, Reader):
        # Which bands are read decides which samples can be, and whose statistics are measured.
        read = compile_for(model.card, without_statistics(dataset.card.bands), *where).read
        dataset = usable(dataset, read)
        if isinstance(dataset, Reader):
            dataset.cache = model.options.store
    transform = compile_for(model.card, dataset.bands, *where)
    if task in DENSE:
        return PerPixel(model, dataset, transform, progress, task)
    return Pooled(model, dataset, transform, progress)


def _evaluate(
    model: Model,
    group: Sequence[Job],
    pending: dict[Key, Identity],
    done: set[str],
    journal: Journal,
    progress: Progress,
    outcome: Outcome,
    gallery: Gallery | None,
) -> None:
    """All jobs of one model on one data set; `pending` always holds the runs that are not recorded yet."""
    options = model.options
    opened = _under(model, group, _open(group, options), progress)
    dataset = opened.dataset
    for note in (*getattr(dataset, "notes", ()), *dataset.warnings):
        if note not in outcome.said:
            outcome.said.add(note)
            progress.line(note)
    if options.verbose:
        for line in opened.transform.describe():
            progress.line(f"{model.card.label} on {dataset.card.name}: {line}")
    for job in group:
        for draw, seed in job.runs:
            key = job.task, job.fraction, draw, seed
            pending[key] = opened.identity(job, draw, seed)
            if pending[key].run_id in done:
                del pending[key]
                outcome.already_done += 1
    computed = 0
    for job, draw in [(one, draw) for one in group for draw in one.draws]:
        todo = [seed for seed in job.seeds if (job.task, job.fraction, draw, seed) in pending]
        if not todo:
            continue
        started = time.time()
        heads = f"{dataset.card.name} {job.task.replace('_', ' ')} {job.fraction}"
        for number, (seed, result) in enumerate(opened.results(job, draw, todo), 1):
            key = job.task, job.fraction, draw, seed
            took = time.time() - started
            said = low_data.notes(dataset, job.fraction, draw, opened.train)
            result = replace(result, notes=(*said, *result.notes))
            record = Record(
                identity=pending[key],
                status="ok",
                metrics=result.metrics,
                primary=options.protocol.primary(job.task, job.dataset, job.card.label),
                modality=dataset.card.modality,
                provenance=facts(
                    *(
                        job,
                        options,
                        model.located,
                        dataset,
                        opened.transform,
                        opened.warnings,
                        opened.extracted,
                        result,
                        took,
                    )
                ),
            )
            if options.strict and opened.warnings:
                raise UserError(f"{dataset.card.name}: {opened.warnings[0]} (--strict makes warnings errors)")
            journal.append(record, result.samples, force=options.force)
            del pending[key]
            computed += 1
            outcome.pictures += [Path(str(path)) for path in [result.facts.get("panels")] if path]
            progress(heads, number, len(todo))
            started = time.time()
    outcome.computed += computed
    outcome.extracted += opened.extracted
    if computed:
        told = f"{dataset.card.name}: "  # readers begin their lines so already
        lines = (*dataset.warnings, *opened.warnings)
        outcome.warnings += [line if line.startswith(told) else told + line for line in lines]
    if gallery and isinstance(opened, PerPixel):
        gallery.add(opened)
    opened.close()
