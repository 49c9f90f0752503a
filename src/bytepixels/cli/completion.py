"""Shell completion: verbs, their flags, and the names that a flag chooses from; anything else is a file."""

from typing import Literal, get_args, get_origin

from ..api import model_names
from ..errors import check_choice
from ..registries import NETWORKS, OBJECTIVES, PROCESSES, SAMPLERS, SCHEDULES
from ..verbs import VERBS, loaded
from .flags import flags_of

SHELLS = {"bash": "", "zsh": "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"}
CHOICES = {
    "--sampler": SAMPLERS,
    "--schedule": SCHEDULES,
    "--diffusion": PROCESSES,
    "--objective": OBJECTIVES,
    "--backbone": NETWORKS,
}
SCRIPT = """\
_bytepixels() {
  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" verb="${COMP_WORDS[1]}" words=""
  case "$verb ${COMP_WORDS[2]}" in %(twins)s) verb="$verb ${COMP_WORDS[2]}" ;; esac
  if [ "$COMP_CWORD" = 1 ]; then words="%(first)s"
  else case "$verb:$before" in
%(choices)s
    *) case "$verb:$word" in
%(flags)s
%(second)s
      *) words="%(models)s" ;;
    esac ;;
  esac; fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  case "$word" in -*) ;; *) [ "$COMP_CWORD" = 1 ] || COMPREPLY+=($(compgen -f -- "$word")) ;; esac
}
complete -o filenames -F _bytepixels bytepixels
"""


def completion(shell: str) -> str:
    """The script that `eval "$(bytepixels --completion bash)"` runs. InputError for a shell that is not known."""
    begin = SHELLS[check_choice("--completion", shell, SHELLS)]
    groups: dict[str, list[str]] = {}
    for name in VERBS:
        first, _, second = name.partition(" ")
        groups.setdefault(first, []).extend([second] if second else [])
    choices, flags, models = [], [], " ".join(model_names())
    for name, verb in VERBS.items():
        own = [flag for flag in flags_of(loaded(verb.request)) if flag.is_flag]
        flags.append(f'      "{name}:"-*) words="{" ".join(sorted({flag.name for flag in own}))}" ;;')
        for flag in own:
            literal = [str(one) for one in get_args(flag.kind)] if get_origin(flag.kind) is Literal else []
            if found := list(CHOICES.get(flag.name, literal)):
                choices.append(f'    "{name}:{flag.name}") words="{" ".join(found)}" ;;')
    follow = [f'      "{first}:"*) words="{" ".join(twins)} {models}" ;;' for first, twins in groups.items() if twins]
    twins = "|".join(f'"{name}"' for name in VERBS if " " in name)
    return begin + SCRIPT % {
        "twins": twins,
        "first": " ".join(groups),
        "choices": "\n".join(choices),
        "flags": "\n".join(flags),
        "second": "\n".join(follow),
        "models": models,
    }
