"""Tab completion of the command ``spectangle`` in bash and zsh, by Hydra's own knowledge of groups and keys."""

from collections.abc import Sequence

from spectangle.errors import SpectangleError, did_you_mean

__all__ = ["SHELLS", "completion_script"]

SHELLS = ("bash", "zsh")
BASH = """
_spectangle() {
  local word="${COMP_WORDS[COMP_CWORD]}" rest="${COMP_LINE#* }" choices
  if (( COMP_CWORD == 1 )); then
    choices="@COMMANDS@"
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
    return
  fi
  choices=$(COMP_LINE="$rest" COMP_POINT=${#rest} spectangle "${COMP_WORDS[1]}" -sc query=bash 2>/dev/null)
  COMPREPLY=($(compgen -o nospace -o default -W "$choices" -- "$word"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _spectangle spectangle
"""
ZSH = "autoload -U +X compinit && compinit -u\nautoload -U +X bashcompinit && bashcompinit" + BASH


def completion_script(shell: str, commands: Sequence[str]) -> str:
    """What a shell evaluates: ``eval "$(spectangle --completion bash)"``.

    Raises:
        SpectangleError: The shell is none of :data:`SHELLS`.
    """
    if shell not in SHELLS:
        hint = did_you_mean(shell, SHELLS) or f" There are: {', '.join(SHELLS)}."
        raise SpectangleError(f"There is no completion for '{shell}'.{hint}")
    return (ZSH if shell == "zsh" else BASH).replace("@COMMANDS@", " ".join(commands)).strip()
