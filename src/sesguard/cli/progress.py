"""Shows the steps of a run as it goes on."""

from sesguard.cli.context import App
from sesguard.cli.i18n import _, translate, translate_message
from sesguard.workflow.engine import Progress, StepReport


class StepPrinter:
    """A listener for `sesguard.workflow.engine.Engine`."""

    def __init__(self, app: App) -> None:
        self._output = app.output

    def __call__(self, report: StepReport) -> None:
        """Show one line of progress."""
        title = f"[{report.number}/{report.total}] {translate_message(report.title)}"
        match report.progress:
            case Progress.BEGUN:
                self._output.step(title)
            case Progress.FAILED:
                self._output.warn(_("failed: {step}").format(step=title))
                if report.problem is not None:
                    self._output.note(translate(report.problem).text)
            case Progress.UNDONE:
                self._output.note(_("put back: {step}").format(step=title))
            case Progress.ACTED | Progress.ALREADY_DONE:
                pass
