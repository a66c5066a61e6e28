"""How long steps take on this machine, with this model: measured while it works."""

from __future__ import annotations

from collections import deque
from statistics import median

from .drafting import StepTimes
from .tuning import MIN_PROMPT, SAMPLES


class Pace:
    """The times of the latest steps.

    Attributes:
        steps: Those of steps that evaluated no prompt, by their number of tokens.
    """

    def __init__(self) -> None:
        self.steps = StepTimes()
        self._generating: deque[float] = deque(maxlen=SAMPLES)  # seconds of steps that evaluated no prompt
        self._prompt_token: deque[float] = deque(maxlen=SAMPLES)  # seconds that each token of a prompt added

    def note(self, n_generating: int, n_prompt: int, seconds: float, *, n_drafted: int = 0) -> None:
        """Note how long a step took.

        Args:
            n_generating: Requests that had a token of their answer evaluated.
            n_prompt: Tokens of prompts.
            seconds: Duration of the step.
            n_drafted: Tokens that were drafted.
        """
        if n_prompt == 0:
            self.steps.note(n_generating + n_drafted, seconds)
        if n_drafted:
            return
        if n_prompt == 0:
            self._generating.append(seconds)
        elif n_prompt >= MIN_PROMPT:
            shared = median(self._generating) if n_generating and self._generating else 0.0
            self._prompt_token.append(max(seconds - shared, seconds / 2) / n_prompt)

    def prompt_tokens(self, n_steps: float) -> int | None:
        """Return how many tokens of prompts take as long as ``n_steps`` steps that only generate.

        Returns:
            ``None`` until both have been measured.
        """
        if not self._generating or not self._prompt_token:
            return None
        return int(n_steps * median(self._generating) / max(median(self._prompt_token), 1e-9))
