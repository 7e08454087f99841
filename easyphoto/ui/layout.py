"""Components by name, and events that give and take values by these names: the desks behind the tabs know no Gradio.

A control's name is its element's id without "easyphoto_".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from easyphoto.ui import gradio_versions as versions
from easyphoto.ui.desk import Change
from easyphoto.ui.knobs import Knob, KnobGroup, Shape, Value

Part = versions.Part
Handler = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Gets the controls' values by name, returns new ones (or a `Change`) by name."""
HIDDEN = "easyphoto-hidden"


@dataclass(kw_only=True, eq=False)
class Controls:
    """All components of the tabs."""

    parts: dict[str, Part] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Part:
        return self.parts[name]

    def keep(self, name: str, part: Part) -> Part:
        """Know a component by a name."""
        self.parts[name] = part
        return part

    def html(self, name: str, value: str = "") -> Part:
        """A place for HTML of ours."""
        return self.keep(name, gr.HTML(value, elem_id=elem_id(name), elem_classes=["easyphoto-html"]))

    def button(self, name: str, label: str, variant: str = "secondary", **more: Any) -> Part:  # noqa: ANN401
        """A button."""
        return self.keep(name, gr.Button(label, variant=variant, elem_id=elem_id(name), **more))

    def state(self, name: str, value: object) -> Part:
        """What the server remembers of each open page."""
        return self.keep(name, gr.State(value))

    def hidden_button(self, name: str) -> Part:
        """A button that only the page's script presses."""
        return self.button(name, name, elem_classes=[HIDDEN])

    def hidden_choice(self, name: str) -> Part:
        """A text that the page's script fills, and `name` + "_go", which it presses then; the button is returned."""
        self.keep(name, gr.Textbox(elem_id=elem_id(name), elem_classes=[HIDDEN], label=name, max_lines=1))
        return self.hidden_button(f"{name}_go")

    def group(self, tab: str, group: KnobGroup, values: Mapping[str, Value]) -> None:
        """Some settings under one heading, closed at first."""
        with gr.Accordion(group.title, open=False, elem_id=elem_id(f"{tab}_{_slug(group.title)}_group")):
            self.knobs(tab, group.knobs, values)

    def knobs(self, tab: str, knobs: Sequence[Knob], values: Mapping[str, Value], visible: bool = True) -> None:
        """Some settings, two in a row."""
        for start in range(0, len(knobs), 2):
            with gr.Row():
                for knob in knobs[start : start + 2]:
                    name = f"{tab}_{knob.name}"
                    self.keep(name, _knob(knob, elem_id(name), values[knob.name], visible))

    def choose(self, event: Callable[..., Any], call: Handler, inputs: Iterable[str], outputs: Sequence[str]) -> None:
        """As `on`, for a choice: whatever was chosen while an answer was awaited, the last of it is asked for as well."""
        self.on(event, call, inputs, outputs, latest=True)

    def on(
        self, event: Callable[..., Any], call: Handler, inputs: Iterable[str], outputs: Sequence[str], latest: bool = False
    ) -> None:
        """Let an event call a handler with some controls' values, and change others by what it returns."""
        named = {name: self.parts[name] for name in inputs}

        def called(data: dict[Part, Any]) -> dict[Part, Any]:
            found = call({name: data[part] for name, part in named.items()})
            # Gradio takes an empty answer for a missing one.
            found = found or {outputs[0]: Change()}
            return {self.parts[name]: _for_gradio(value) for name, value in found.items()}

        versions.listen(event, called, set(named.values()), [self.parts[name] for name in outputs], latest)


def elem_id(name: str) -> str:
    """The id of the element of that name."""
    return f"easyphoto_{name}"


def _knob(knob: Knob, identifier: str, value: Value, visible: bool) -> Part:
    info: dict[str, Any] = {"info": knob.info} if knob.info else {}
    info["visible"] = visible
    if knob.shape is Shape.CHECKBOX:
        return gr.Checkbox(label=knob.label, value=bool(value), elem_id=identifier, **info)
    if knob.shape is Shape.NUMBER:
        return gr.Number(label=knob.label, value=value, elem_id=identifier, **info)
    if knob.shape is Shape.CHOICE:
        return gr.Dropdown(list(knob.choices), value=str(value), label=knob.label, elem_id=identifier, **info)
    if knob.shape is Shape.TEXT:
        return gr.Textbox(label=knob.label, value=str(value), lines=2, max_lines=6, elem_id=identifier, **info)
    return gr.Slider(knob.low, knob.high, value=value, step=knob.step, label=knob.label, elem_id=identifier, **info)


def _for_gradio(value: object) -> object:
    return versions.update(value.fields) if isinstance(value, Change) else value


def _slug(title: str) -> str:
    return title.lower().replace(" ", "_")
