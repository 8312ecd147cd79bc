// A button with data-copy="id" copies the field of that id, and says so.
document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-copy]");
    if (!button) return;
    const field = document.getElementById(button.dataset.copy);
    field.select();
    try {
        await navigator.clipboard.writeText(field.value);
    } catch {
        document.execCommand("copy"); // without TLS there is no clipboard API
    }
    button.textContent = "Copied";
});
