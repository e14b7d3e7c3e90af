"""A language model behind OpenAI's API reads a window of documents together and says which comes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from orchestrator.checks import check_counts
from orchestrator.errors import ConfigError
from orchestrator.types import Call, Document, Query, ScoreKind

from ..llm.chat import Answer
from ..llm.prompt import check_instructions, fenced, messages
from ..llm.reply import RANKING, read_order
from ..llm.stage import LLMStage, in_language

_PLACEHOLDERS = ("{query}", "{documents}")


@dataclass(eq=False)
class LLMRerank(LLMStage):
    """A `WindowRerank`: the core slides its window over the list, `passes` times.

    A reply that leaves documents out, names one twice or cannot be read costs no query: the rest keeps its incoming
    order, and the trace counts the repairs by kind. Documents stand between marks that their own text cannot forge.

    Args:
        window: documents of one request.
        stride: how far the window moves on a longer list.
        passes: how often the windows go over a longer list; a pass that moves nothing is the last.

    The other arguments are those of `LLMStage`; in the instructions `{query}`, `{documents}` and `{n}` are filled in.
    """

    score_kind: ClassVar[ScoreKind] = "rank"
    cost_kind: ClassVar[str] = "llm"

    window: int = 20
    stride: int = 10
    passes: int = 1

    def __post_init__(self, api_key: str | None) -> None:
        super().__post_init__(api_key)
        check_counts(window=self.window, stride=self.stride, passes=self.passes)
        if self.stride > self.window:
            raise ConfigError("stride", f"found {self.stride} with window={self.window}; expected 1 to the window")
        check_instructions(self.instructions, _PLACEHOLDERS)
        self.prompt = in_language(self.instructions, self.prompt_language)
        self.check_context(self.prompt, self.window, self.max_output_tokens)

    @property
    def model_id(self) -> str:
        """Server, model, prompt and limits in one digest. What the server changes is not seen."""
        return self.digest(self.prompt)

    def order(self, query: Query, documents: Sequence[Document], call: Call) -> Sequence[int]:
        """Places in `documents`, best first.

        Raises:
            RemoteError: the server gave no answer, or the answer could cost more than is left of `max_usd`.
            CallCancelledError: nobody waits for the call any more.
        """
        if len(documents) < 2:
            return range(len(documents))
        texts = [self.shown_text(document, call) for document in documents]
        values = {"{query}": query.text, "{documents}": fenced(query.text, texts), "{n}": str(len(texts))}
        asked = messages(self.prompt, values)
        request = partial(self.chat.ask, asked, call, self.max_output_tokens, RANKING)
        self.declare_price(call)
        (answer,) = self.chat.server.remote.run([request], call)
        return self._read(answer, len(documents), call)

    def _read(self, answer: Answer, n_documents: int, call: Call) -> Sequence[int]:
        if answer.finish == "length":
            call.note(f"a reply was cut off at max_output_tokens={self.max_output_tokens}")
        places, repairs = read_order(answer.content, n_documents, complete=answer.complete)
        if places is None:
            kind = answer.trouble or ("unparsed" if answer.complete else "truncated")
            call.repair(kind)
            call.note(f"{self.model.name} gave no ranking ({kind}); the incoming order was kept")
            return range(n_documents)
        call.repair("truncated", 0 if answer.complete else 1)
        for kind, times in repairs.items():
            call.repair(kind, times)
        return places
