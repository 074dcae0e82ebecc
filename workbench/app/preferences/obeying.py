"""The application's part that does as the user prefers, and keeps the theme that is chosen."""

from textual import work
from textual.app import App
from textual.binding import Binding

from workbench.app.actions import KEY_NAMES, Action
from workbench.app.preferences import USUAL, Preferences
from workbench.app.preferences.keymap import textual_keymap, with_keys


class ObeysPreferences(App[int]):
    """Has its keys and its theme from `preferences`, which `obey` takes before the app runs."""

    preferences = USUAL

    def obey(self, preferences: Preferences) -> None:
        """Take keys and theme from what the user prefers."""
        self.preferences = preferences
        self.theme = preferences.theme
        if preferences.keys:
            self.set_keymap(textual_keymap(preferences.keys))

    def bound(self, action: Action) -> Action:
        """Return an action with the keys that it has in this app."""
        return with_keys(action, self.preferences.keys)

    def get_key_display(self, binding: Binding) -> str:
        """Show keys of one's own as the usual ones are shown."""
        return binding.key_display or KEY_NAMES.get(binding.key) or super().get_key_display(binding)

    def watch_theme(self, _before: str, theme: str) -> None:
        """Keep a theme that is chosen while the app runs."""
        if self.is_running and theme != self.preferences.theme:
            self._keep(theme)

    @work(thread=True, exclusive=True, group="theme", exit_on_error=False)
    def _keep(self, theme: str) -> None:
        from workbench.app.preferences.writing import keep_theme

        keep_theme(theme)
