"""The commands of `runtara`, put together. Each imports the part it needs when it runs: `list` knows no engine."""

import typer

from . import (
    agents,
    audit,
    connections,
    control,
    credentials,
    dsl,
    dsl_register,
    forks,
    image_build,
    images,
    info,
    instances,
    local,
    parts,
    retention,
    runners,
    schedules,
    workflows,
)

app = typer.Typer(
    name="runtara",
    help="Durable execution: workflows that survive crashes, restarts and deployments.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("dev")(local.dev)
app.command("demo")(local.demo)
app.command("run")(local.run)

app.command("engine")(parts.engine)
app.command("worker")(parts.worker)
app.command("runner")(runners.runner)
app.command("migrate")(parts.migrate)

app.command("info")(info.info)
app.command("start")(instances.start)
app.command("list")(instances.list_instances)
app.command("show")(instances.show)
app.command("result")(instances.result)
app.command("log")(instances.log)
app.command("tail")(instances.tail)
app.command("pause")(control.pause)
app.command("resume")(control.resume)
app.command("cancel")(control.cancel)
app.command("retry")(control.retry)
app.command("fork")(forks.fork)
app.command("signal")(instances.signal)

app.add_typer(workflows.app, name="workflow")
app.add_typer(schedules.app, name="schedule")
images.app.command("test")(image_build.try_image)
images.app.command("build")(image_build.build)
app.add_typer(images.app, name="image")
app.add_typer(agents.app, name="agents")
app.add_typer(connections.app, name="connections")
app.add_typer(credentials.app, name="credential")
dsl.app.command("register")(dsl_register.register)
app.add_typer(dsl.app, name="dsl")
audit.app.command("export")(retention.export)
audit.app.command("archive")(retention.archive)
app.add_typer(audit.app, name="audit")
