"""Onboarding: a welcome e-mail, three days of durable sleep, then a reminder or a thank-you.

runtara dev examples/onboarding.py
runtara start onboarding --id ada --input '{"email": "ada@example.com"}'
runtara show ada                          # sleeping: no process holds it, and a crash or a deploy does not matter
runtara signal ada profile-completed
runtara start onboarding --input '{"email": "bob@example.com", "patience_seconds": 5}' --wait
"""

from datetime import timedelta

from runtara.sdk import Context, Retry, step, workflow

THREE_DAYS = 3 * 24 * 60 * 60


@step(key="{subject}", retry=Retry(max_attempts=10))
async def send(email: str, subject: str) -> str:
    """Stands for a call to a mail provider. The key is the subject: each mail goes out once per instance."""
    print(f"to {email}: {subject}")
    return subject


@workflow
async def onboarding(ctx: Context, email: str, patience_seconds: float = THREE_DAYS) -> list[str]:
    sent = [await send(email, "Welcome!")]
    await ctx.sleep("settle-in", timedelta(seconds=patience_seconds))
    try:
        await ctx.wait_signal("profile-completed", timeout=timedelta(seconds=patience_seconds))
    except TimeoutError:
        sent.append(await send(email, "Your profile is still empty"))
    else:
        sent.append(await send(email, "Thank you for your profile"))
    return sent
