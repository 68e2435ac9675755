# SPDX-License-Identifier: GPL-2.0-only
"""What host.run() and here.run() tell of a run while it goes on."""

from common import say


class Observer:
    """One that has little to say.  An entry is one of "machines" of run.json, see record.py."""

    def booting(self, cpu, limit):
        """A machine boots with a CPU of lab/machines; the run may take so many seconds."""
        say(f"booting on {cpu}, limit {limit} s")

    def booted(self, entry):
        """It has booted, or it will not."""

    def begins(self, entry):
        """A machine begins with the programs of entry, which says nothing of their end yet."""

    def ended(self, entry):
        """That machine has ended, and its logs are complete."""
        say(f"{entry['programs'][0]}: {entry['why'] or 'ended'} ({entry['seconds']:.0f} s)")

    def tick(self):
        """Less than a second has passed."""
