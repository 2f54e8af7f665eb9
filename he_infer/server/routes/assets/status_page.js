// The token stays in the page: it is sent to this server only, and kept nowhere.
document.getElementById('budget').addEventListener('submit', async (event) => {
  event.preventDefault();
  const shown = document.getElementById('left');
  const token = document.getElementById('token').value.trim();
  try {
    const reply = await fetch('/v2/budget',
      {headers: token ? {authorization: 'Bearer ' + token} : {}});
    const data = await reply.json();
    if (!reply.ok) { shown.textContent = data.error; return; }
    const left = data.records_left === null ? 'no limit'
      : data.records_left + ' of ' + data.records_limit + ' records left';
    const resets = data.resets_in_s === null ? ''
      : ', renewed in ' + Math.ceil(data.resets_in_s / 60) + ' min';
    shown.textContent = data.tenant + ': ' + left + resets;
  } catch (error) { shown.textContent = 'the server does not answer'; }
});
