"""Runs: build the model, open the data, extract once, evaluate every head, record. What is recorded is never done twice."""

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from harness import provenance
from harness.measure import CannotBuild, Model, Opened, Options, facts, identity, label_of, primary, results
from harness.plan import Job
from harness.progress import Progress
from leaderboards.results import Identity, Journal, JournalError, Record
from models.common.errors import UserError
from models.common.weights import Located
from tasks.data import catalogue
from tasks.data.dataset import Dataset


@dataclass
class Outcome:
    """What a call of `run` did: counts of runs, failures as (what, reason, mendable by the caller), and what was said once."""

    computed: int = 0
    already_done: int = 0
    extracted: int = 0
    failures: list[tuple[str, str, bool]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    said: set[str] = field(default_factory=set)


def run(
    jobs: Sequence[Job], located: dict[str, Located], options: Options, journal: Journal, progress: Progress
) -> Outcome:
    """Do every job, model by model and data set by data set. A failure is recorded with its reason, and the rest goes on."""
    outcome = Outcome()
    done = set() if options.force else journal.done()
    for label, of_model in groupby(jobs, key=lambda job: job.card.label):
        of_model = list(of_model)
        model = Model(of_model[0].card, located[label], options)
        for name, group in groupby(of_model, key=lambda job: job.dataset.name):
            group = list(group)
            progress.prefix = f"{label} on "
            # Where the data set could not even be opened, its version is unknown, and the record of the failure says so.
            pending = {_key(job, seed): identity(model, job, seed) for job in group for seed in job.seeds}
            try:
                _evaluate(model, group, pending, done, journal, progress, outcome)
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
    return outcome


def _key(job: Job, seed: int | None) -> tuple[str, str, int | None]:
    """What tells one run of a data set from another."""
    return job.task, job.fraction, seed


def _open(group: Sequence[Job], options: Options) -> Dataset:
    job = group[0]
    dataset = catalogue.open_dataset(job.dataset, job.path, options.protocol.band_names)
    if options.strict and dataset.warnings:
        raise UserError(f"{job.dataset.name}: {dataset.warnings[0]} (--strict makes warnings errors)")
    return dataset


def _evaluate(
    model: Model,
    group: Sequence[Job],
    pending: dict[tuple[str, str, int | None], Identity],
    done: set[str],
    journal: Journal,
    progress: Progress,
    outcome: Outcome,
) -> None:
    """All jobs of one model on one data set; `pending` always holds the runs that are not recorded yet."""
    options = model.options
    dataset = _open(group, options)
    opened = Opened(model, dataset, progress)
    for note in (*getattr(dataset, "notes", ()), *dataset.warnings):
        if note not in outcome.said:
            outcome.said.add(note)
            progress.line(note)
    if options.verbose:
        for line in opened.transform.describe():
            progress.line(f"{model.card.label} on {dataset.card.name}: {line}")
    for job in group:
        for seed in job.seeds:
            pending[_key(job, seed)] = opened.identity(job, seed)
            if pending[_key(job, seed)].run_id in done:
                del pending[_key(job, seed)]
                outcome.already_done += 1
    for job in group:
        todo = [seed for seed in job.seeds if _key(job, seed) in pending]
        started = time.time()
        heads = f"{dataset.card.name} {job.task.replace('_', ' ')} {job.fraction}"
        for number, (seed, result) in enumerate(results(job, todo, opened), 1):
            record = Record(
                identity=pending[_key(job, seed)],
                status="ok",
                metrics=result.metrics,
                primary=primary(job, options.protocol),
                modality=dataset.card.modality,
                provenance=facts(opened, label_of(job, options), result, time.time() - started),
            )
            journal.append(record, result.samples, force=options.force)
            del pending[_key(job, seed)]
            outcome.computed += 1
            progress(heads, number, len(todo))
            started = time.time()
    if "table" in opened.__dict__:
        outcome.extracted += opened.table.extracted
        outcome.warnings += [f"{dataset.card.name}: {line}" for line in (*dataset.warnings, *opened.table.warnings)]
