"""A runner for tests that calls the tasks one after another in this process."""

import importlib

from launch.runners.tasks import Event, Resources, Slot


class Inline:
    """Calls `instead`, if given, in place of the named function."""

    def __init__(self, instead=None):
        self.instead = instead

    def resources(self, workers):
        return Resources(workers=workers)

    def slots(self, tasks, resources):
        return [Slot(cores=(0,))]

    def run(self, function, tasks, resources, interrupt):
        module, name = function.split(":")
        call = self.instead or getattr(importlib.import_module(module), name)
        for task in tasks:
            if not interrupt.count:
                yield Event("started", task.key, 1)
                yield Event("finished", task.key, 1, call(*task.args))
