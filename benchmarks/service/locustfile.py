"""Locust traffic for a running service: all dialects and jobs in the mixture of `traffic.py`, with a limit.

    gliclass-rerank bench load                                   # starts a service, and runs this at several loads
    PYTHONPATH=. locust -f benchmarks/service/locustfile.py --host http://127.0.0.1:8000 --users 20 --rate 10

Requests arrive at ``--rate`` per second in total, at times of a Poisson process, without waiting for earlier answers,
as long as a user is free. Refusals (429) are counted and are no failures. Any other unexpected answer is a failure.
The run ends after at most ``--most`` requests. ``--record`` names a file for the times of all requests, for `load.py`.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from pathlib import Path
from typing import Any

from locust import FastHttpUser, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from benchmarks.service.traffic import Call, Traffic

SEED = 7
POLL = 0.2  # seconds between polls of a job's result; Locust patches time.sleep, so other users continue
JOB_SECONDS = 120.0

numbers = itertools.count()
rows: list[tuple[str, float, float, int]] = []


def add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=5.0, help="requests per second of all users together")
    parser.add_argument("--most", type=int, default=100_000, help="maximum number of requests")
    parser.add_argument("--record", default="", help="file for the times of all requests")


def write_record(environment: Environment, **_: object) -> None:
    if environment.parsed_options and environment.parsed_options.record:
        Path(environment.parsed_options.record).write_text(json.dumps(rows), "utf-8")


events.init_command_line_parser.add_listener(add_options)  # type: ignore[no-untyped-call]
events.quitting.add_listener(write_record)  # type: ignore[no-untyped-call]


class Client(FastHttpUser):
    """One user: sends a call at each arrival, or at once if it is late."""

    network_timeout = connection_timeout = 120.0

    def on_start(self) -> None:
        """Initialize the user's own arrival times."""
        number = next(numbers)
        options = self.environment.parsed_options
        assert options is not None
        self._rate, self._most = options.rate / max(1, options.num_users or 1), options.most
        self._arrivals = random.Random(f"{SEED} {number}")
        self._traffic = Traffic(SEED + number)
        self._next, self._arrived = time.monotonic(), False
        self._headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get("GLICLASS_RERANK_API_KEY")) else {}

    def wait_time(self) -> float:
        """Seconds until the next arrival."""
        self._next += self._arrivals.expovariate(self._rate)
        return max(0.0, self._next - time.monotonic())

    @task
    def send(self) -> None:
        """Send a call, and poll a job until its end."""
        if not self._arrived:  # Locust starts with a task; waiting within it would delay the end of a run
            self._arrived = True
            return
        call = self._traffic.next()
        started = time.time()
        with self.client.post(
            call.path, json=call.body, name=call.name, headers=self._headers, catch_response=True
        ) as answer:
            status = answer.status_code
            if status in (200, 202, 429):
                answer.success()
            told = answer.json() if status == 202 else {}
        rows.append((call.name, started, time.time() - started, status))
        if call.is_job and status == 202:
            self._follow(call, str(told["task_id"]), started)
        if len(rows) >= self._most and self.environment.runner:
            self.environment.runner.quit()

    def _follow(self, call: Call, task_id: str, started: float) -> None:
        """Poll for a job's result and record its end in a separate row, with status 0 if the job does not complete."""
        status, told = 202, dict[str, Any]()
        while status == 202 and time.time() - started < JOB_SECONDS:
            time.sleep(POLL)
            with self.client.get(
                f"/result/{task_id}", name="/result", headers=self._headers, catch_response=True
            ) as answer:
                status, told = answer.status_code, answer.json() if answer.status_code in (200, 202) else {}
                if status not in (200, 202) or told.get("status") == "Failed":
                    answer.failure(f"{status} {told.get('error', '')}")
                else:
                    answer.success()
        done = status == 200 and told.get("status") == "Completed"
        rows.append((f"{call.name}, to its end", started, time.time() - started, 200 if done else 0))
